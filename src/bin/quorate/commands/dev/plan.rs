//! The plan of a development cluster, decided before anything runs.

use std::fmt::Write;

use quorate::server::config::Config;

/// Ports from one node's first to the next one's.
const PORT_STRIDE: u32 = 10;

/// The shape of a cluster on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How many nodes, with ids from 1.
    pub nodes: u64,
    /// The client port of node 1.
    pub base_port: u16,
}

impl Plan {
    /// Checks that every port exists. Errors: names the highest one.
    pub fn new(nodes: u64, base_port: u16) -> Result<Self, String> {
        let highest = u32::from(base_port) + PORT_STRIDE * (nodes as u32 - 1) + 2;
        if base_port == 0 || highest > u32::from(u16::MAX) {
            return Err(format!("--base-port must leave room for all nodes: base_port={base_port} highest={highest} limit=65535"));
        }
        Ok(Self { nodes, base_port })
    }

    /// Where the node takes clients.
    pub fn client_address(&self, node: u64) -> String {
        self.address(node, 0)
    }

    /// Where the node answers over HTTP.
    pub fn admin_address(&self, node: u64) -> String {
        self.address(node, 2)
    }

    /// Where all nodes listen.
    pub fn addresses(&self) -> Vec<String> {
        (1..=self.nodes)
            .flat_map(|node| (0..3).map(move |offset| (node, offset)))
            .map(|(node, offset)| self.address(node, offset))
            .collect()
    }

    /// All client addresses.
    pub fn endpoints(&self) -> Vec<String> {
        (1..=self.nodes).map(|node| self.client_address(node)).collect()
    }

    /// The `cluster.toml` of this cluster.
    pub fn cluster_toml(&self) -> String {
        let mut text = String::from(
            "# Written by `quorate dev` at every start; see the shipped cluster.toml for what else can be set.\n\nname = \"dev\"\n",
        );
        for node in 1..=self.nodes {
            let (client, peer, admin) = (self.address(node, 0), self.address(node, 1), self.address(node, 2));
            let _ = write!(text, "\n[[node]]\nid = {node}\nclient = \"{client}\"\npeer = \"{peer}\"\nadmin = \"{admin}\"\n");
        }
        text
    }

    /// Whether data made under `existing` fits this plan. Errors: how to call the command instead.
    pub fn fits(&self, existing: &Config) -> Result<(), String> {
        let planned = Config::parse(&self.cluster_toml()).map_err(|error| error.to_string())?;
        if existing.configuration_hash() == planned.configuration_hash() {
            return Ok(());
        }
        let nodes = existing.members.len();
        let port = existing.members.first().and_then(|member| member.client.rsplit(':').next()).unwrap_or("?");
        Err(format!("its data belongs to another cluster: pass --nodes {nodes} --base-port {port}, or another --data-dir"))
    }

    fn address(&self, node: u64, offset: u32) -> String {
        let port = u32::from(self.base_port) + PORT_STRIDE * (node as u32 - 1) + offset;
        format!("127.0.0.1:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_plan_has_the_ports_of_the_shipped_file() {
        let plan = Plan::new(3, 7460).expect("room");
        let planned = Config::parse(&plan.cluster_toml()).expect("valid");
        let shipped = Config::load(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster.toml")).expect("valid");
        assert_eq!(planned.members, shipped.members);
        assert_eq!(plan.endpoints(), ["127.0.0.1:7460", "127.0.0.1:7470", "127.0.0.1:7480"]);
    }

    #[test]
    fn ports_beyond_the_last_are_refused() {
        assert!(Plan::new(3, 65_513).is_ok());
        assert!(Plan::new(3, 65_514).expect_err("no room").contains("highest=65536"));
        assert!(Plan::new(3, 0).is_err());
    }

    #[test]
    fn data_of_another_shape_is_refused_with_the_flags_that_fit_it() {
        let three = Plan::new(3, 7460).expect("room");
        let existing = Config::parse(&three.cluster_toml()).expect("valid");
        assert_eq!(three.fits(&existing), Ok(()));
        let five = Plan::new(5, 9000).expect("room");
        assert!(five.fits(&existing).expect_err("differs").contains("--nodes 3 --base-port 7460"));
    }
}
