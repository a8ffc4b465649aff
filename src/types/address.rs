//! Addresses of nodes, `host:port`.

use std::net::{IpAddr, Ipv6Addr};

use crate::limits::ADDRESS_BYTES_MAX;

/// Whether it is `host:port` as this program writes addresses, and can be connected to. Errors: the rest of a sentence about it.
pub fn validate_address(address: &str) -> Result<(), &'static str> {
    validate_listen_address(address)?;
    match host_ip(address).is_some_and(|ip| ip.is_unspecified()) {
        true => Err("is where the others connect to, and names no host; every address of a machine is for `client_listen`, \
                     `peer_listen` and `admin_listen`"),
        false => Ok(()),
    }
}

/// Checks an address to listen at, which may be every address of the machine. Errors: the rest of a sentence about it.
pub fn validate_listen_address(address: &str) -> Result<(), &'static str> {
    if address.len() > ADDRESS_BYTES_MAX {
        return Err("is too long for an address");
    }
    let Some((host, port)) = address.rsplit_once(':') else {
        return Err("must be host:port");
    };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let inner = if bracketed { &host[1..host.len() - 1] } else { host };
    let host_is_fine = match bracketed {
        true => inner.parse::<Ipv6Addr>().is_ok(),
        false => !inner.is_empty() && inner.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)),
    };
    if !host_is_fine {
        return Err("must be host:port, an IPv6 host in brackets");
    }
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(()),
        _ => Err("must have a port from 1 to 65535"),
    }
}

/// Whether only this machine reaches it.
pub fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host == "localhost" || host_ip(address).is_some_and(|ip| ip.is_loopback())
}

fn host_ip(address: &str) -> Option<IpAddr> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_matches(['[', ']']).parse().ok()
}
