//! Packets between nodes that do not arrive: dropped by the kernel where this run has a network of its own, else held by the proxies.

use std::process::{Command, Stdio};

use quorate::testing::processes::{Proxies, Rule};

/// How packets are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// By nftables, in a network namespace of this run.
    Kernel,
    /// By the proxies.
    Proxy,
}

impl Cut {
    /// Finds out what works here. Only `run.sh` can tell that the network is this run's own: it says so in the environment.
    pub fn probe() -> Self {
        let own = std::env::var("QUORATE_CHAOS_OWN_NET").is_ok_and(|own| own == "1");
        if own && nft(&setup()).is_ok() { Self::Kernel } else { Self::Proxy }
    }

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "nftables in a network namespace",
            Self::Proxy => "userland proxies",
        }
    }

    /// From now on, of a hundred packets from the first to the second of each pair so many are lost; 100: none arrives.
    ///
    /// Errors: it could not be installed, and nothing was.
    pub fn drop_packets(self, proxies: &Proxies, pairs: &[(usize, usize)], percent: u64) -> Result<(), String> {
        match self {
            Self::Kernel => nft(&rules(proxies, pairs, percent)),
            Self::Proxy => {
                let stalled = percent == 100;
                proxies.set(pairs, Rule { stalled, loss_percent: if stalled { 0 } else { percent }, ..Rule::default() });
                Ok(())
            }
        }
    }

    /// How many packets were lost since the last heal, or chunks held back ever.
    pub fn affected(self, proxies: &Proxies) -> u64 {
        match self {
            Self::Kernel => counted(&list()),
            Self::Proxy => proxies.affected(),
        }
    }

    /// All arrives again. Errors: it does not.
    pub fn heal(self, proxies: &Proxies) -> Result<(), String> {
        proxies.heal();
        if self == Self::Kernel { nft("flush chain inet chaos lost\n") } else { Ok(()) }
    }
}

fn setup() -> String {
    "table inet chaos {\n chain lost {\n type filter hook input priority 0;\n }\n}\n".to_owned()
}

/// The proxy's port names both ends: what `a` sends to `b` goes to the port through which `a` dials `b`, or comes from the one through
/// which `b` dials `a`.
fn rules(proxies: &Proxies, pairs: &[(usize, usize)], percent: u64) -> String {
    let chance = if percent >= 100 { String::new() } else { format!("numgen random mod 100 < {percent} ") };
    let rule = |(from, to): &(usize, usize)| {
        let (dialed, answered) = (proxies.port((*from, *to)), proxies.port((*to, *from)));
        format!(
            "add rule inet chaos lost tcp dport {dialed} {chance}counter drop\nadd rule inet chaos lost tcp sport {answered} {chance}counter drop\n"
        )
    };
    pairs.iter().map(rule).collect()
}

fn nft(script: &str) -> Result<(), String> {
    use std::io::Write as _;
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("nft does not run: {error}"))?;
    let written = child.stdin.take().map(|mut stdin| stdin.write_all(script.as_bytes()));
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    match (written, output.status.success()) {
        (Some(Ok(())), true) => Ok(()),
        _ => Err(String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or("nft failed").to_owned()),
    }
}

fn list() -> String {
    let output = Command::new("nft").args(["list", "chain", "inet", "chaos", "lost"]).stderr(Stdio::null()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

fn counted(listing: &str) -> u64 {
    let counts = listing.split("packets ").skip(1).filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok());
    counts.sum()
}

#[test]
fn packets_of_all_rules_are_counted() {
    let listing = "chain lost {\n tcp dport 1 counter packets 3 bytes 180 drop\n tcp sport 2 counter packets 40 bytes 1 drop\n}";
    assert_eq!(counted(listing), 43);
    assert_eq!(counted(""), 0);
}
