//! Under which names the admin port answers while no tokens are in force. A page of another site reaches this port through a visitor's
//! browser once its own name is made to lead here; the browser then takes this port for that site, and only the name gives it away.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::server::context::ServerContext;
use crate::tls::host_of;

/// Answers 403 to requests under a foreign name, where no tokens are in force. Probes are answered under any.
pub async fn check(State(context): State<ServerContext>, request: Request, next: Next) -> Response {
    let is_probe = ["/livez", "/readyz"].contains(&request.uri().path());
    if context.guard().is_open() && !is_probe {
        let members = context.node().members();
        let own: Vec<&str> = members.iter().map(|member| host_of(&member.admin_address)).collect();
        let foreign =
            request.headers().get_all(header::HOST).iter().find(|host| !host.to_str().is_ok_and(|host| is_own(host, &own)));
        if let Some(foreign) = foreign {
            return (StatusCode::FORBIDDEN, refusal(foreign.as_bytes(), &own)).into_response();
        }
    }
    next.run(request).await
}

fn refusal(foreign: &[u8], own: &[&str]) -> String {
    format!(
        "no tokens are in force, so the admin port answers under its own names only; nothing was changed host=\"{}\"; use an IP address, \
         localhost or the host of a member's admin address ({}), or put tokens in force\n",
        foreign.escape_ascii(),
        own.join(",")
    )
}

/// Whether a `Host` header names this machine itself, or a member as it is configured: no other site has such a name.
fn is_own(host: &str, own: &[&str]) -> bool {
    let name = host_of(host);
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_address = name.parse::<Ipv4Addr>().is_ok() || name.parse::<Ipv6Addr>().is_ok();
    is_address || name.eq_ignore_ascii_case("localhost") || own.iter().any(|own| !own.is_empty() && own.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_localhost_and_members_are_own_names_and_nothing_else_is() {
        let own = ["node-1.example", "", "10.0.0.1"];
        for host in
            ["127.0.0.1", "127.0.0.1:7462", "[::1]:7462", "[::1]", "LOCALHOST:7462", "localhost.", "Node-1.example:80", "10.9.9.9"]
        {
            assert!(is_own(host, &own), "{host}");
        }
        for host in ["", ":7462", "another.example", "node-1.example.another.example:7462", "127.0.0.1.another.example", "a@b"] {
            assert!(!is_own(host, &own), "{host}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_use_and_prints_nothing_raw() {
        let text = refusal(b"a\x1b[2Jb", &["n1", "n2"]);
        assert!(text.contains(r#"host="a\x1b[2Jb""#) && text.contains("(n1,n2)"), "{text}");
    }
}
