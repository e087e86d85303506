//! HDP406 unanswered: the server got the query and kept silent.

use crate::checks::{Case, Check, Finding, code::Code, symptom};

pub(in crate::checks) const CHECK: Check = Check { code: Code::Unanswered, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
The query reached the server's socket, and the server did not answer in time.

The datapath did its work. The server waits for its own upstreams, or it hangs: a slow or dead
upstream shows like this when the server gives no SERVFAIL of its own before the time is up.

By hand: `dig @ADDRESS example.com` on the node itself takes as long.

Fix: ask the node's upstreams directly. Talos: `talosctl -n NODE get dnsupstreams` says which are
healthy, `talosctl -n NODE logs dns-resolve-cache` what happened, `talosctl -n NODE get resolvers`
whom it asks.

Versions: any.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    symptom::shown(case, Code::Unanswered, "The server gets the query but does not answer in time.")
}

#[cfg(test)]
mod tests {
    use crate::{
        checks::testing::{Fate, Scene},
        ended::Direction,
    };

    #[test]
    fn needs_proof_that_it_arrived() {
        assert!(Scene::new().coredns(Fate::Unanswered).finding("HDP406").is_some());
        assert_eq!(Scene::new().coredns(Fate::Silent).finding("HDP406"), None);
        let mut blind = Scene::new().coredns(Fate::Unanswered);
        blind.events.lost = 1;
        assert_eq!(blind.finding("HDP406"), None);
        assert_eq!(Scene::new().coredns(Fate::Lost(Direction::Reply)).finding("HDP406"), None);
    }
}
