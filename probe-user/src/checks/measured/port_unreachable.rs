//! HDP405 port-unreachable: the node says that nobody listens.

use crate::checks::{Case, Check, Finding, code::Code, symptom};

pub(in crate::checks) const CHECK: Check = Check { code: Code::PortUnreachable, explain: EXPLAIN, run };

const EXPLAIN: &str = r#"The node refused the query: an ICMP port unreachable, or a TCP reset.

The query reached the node and no socket wanted it, or a firewall rule rejected it (HDP108). The
datapath is fine. Clients see it at once, as "connection refused", not as a timeout.

By hand: `dig @ADDRESS example.com` from a pod says `connection refused`; `ss -lnup 'sport = :53'`
on the node.

Fix: the one of the root: HDP103 (nobody listens), HDP104 (one transport or address only), HDP108
(a rule that rejects). Without a root: a socket is there, so see who sends the refusal with
`hostdns-probe trace`.

Versions: any.
"#;

fn run(case: &Case<'_>) -> Vec<Finding> {
    symptom::shown(case, Code::PortUnreachable, "The node refuses the query.")
}

#[cfg(test)]
mod tests {
    use crate::{
        checks::testing::{Fate, Scene},
        ended::Direction,
    };

    #[test]
    fn a_socketless_drop_is_a_refusal() {
        assert!(Scene::new().coredns(Fate::Refused).finding("HDP405").is_some());
        let dropped = Scene::new().coredns(Fate::Dropped("NO_SOCKET", Direction::Request, None));
        assert!(dropped.finding("HDP405").is_some());
        assert_eq!(dropped.finding("HDP401"), None);
    }
}
