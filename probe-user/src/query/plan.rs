//! Every question of one round, and asking them side by side.

use std::{future::Future, net::SocketAddr, time::Duration};

use futures_util::stream::{self, StreamExt as _};
use hickory_proto::rr::RecordType;

use super::{
    Evidence, Observer, Query, Question, UNCACHED_QNAME, Vantage, VantageKind,
    ask::{TIMEOUT, ask},
};
use crate::{
    facts::Transport,
    target::{NODE_RESOLVER, Targets},
};

/// What every vantage asks: reserved for such use (RFC 2606), known to every resolver, and sooner or later in every
/// cache on the way, so that it costs the upstream nothing.
pub const QNAME: &str = "example.com";

/// The type asked for [`QNAME`].
pub const QTYPE: RecordType = RecordType::A;

/// The type [`UNCACHED_QNAME`] has records of.
pub const UNCACHED_QTYPE: RecordType = RecordType::TXT;

/// Questions in the air at once, at most.
pub const CONCURRENCY: usize = 32;

/// What is to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The first is asked by every vantage over every transport; the others once per address, by the first vantage,
    /// over the first transport.
    pub names: Vec<(String, RecordType)>,
    pub transports: Vec<Transport>,
    pub timeout: Duration,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            names: vec![(QNAME.into(), QTYPE), (UNCACHED_QNAME.into(), UNCACHED_QTYPE)],
            transports: vec![Transport::Udp, Transport::Tcp],
            timeout: TIMEOUT,
        }
    }
}

/// One question and who asks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub vantage: Vantage,
    pub question: Question,
}

/// Every vantage, every target address, every transport, in that order; then what is asked once. The vantage
/// `node@127.0.0.53` asks that address instead of the targets.
#[must_use]
pub fn plan(vantages: &[Vantage], targets: &Targets, wanted: &Wanted) -> Vec<Ask> {
    let mut asks = Vec::new();
    let Some((first, others)) = wanted.names.split_first() else {
        return asks;
    };
    let ask = |vantage: &Vantage, address, transport, (qname, qtype): &(String, RecordType)| Ask {
        vantage: vantage.clone(),
        question: Question { qname: qname.clone(), qtype: *qtype, address, transport, timeout: wanted.timeout },
    };
    for vantage in vantages {
        for address in asked_by(vantage, targets) {
            asks.extend(wanted.transports.iter().map(|&transport| ask(vantage, address, transport, first)));
        }
    }
    if let (Some(vantage), Some(&transport)) = (vantages.first(), wanted.transports.first()) {
        for address in asked_by(vantage, targets) {
            asks.extend(others.iter().map(|name| ask(vantage, address, transport, name)));
        }
    }
    asks
}

fn asked_by(vantage: &Vantage, targets: &Targets) -> Vec<SocketAddr> {
    match vantage.kind {
        VantageKind::NodeLoopback => vec![SocketAddr::new(NODE_RESOLVER, targets.port)],
        _ => targets.sockets().collect(),
    }
}

/// Asks everything, [`CONCURRENCY`] at a time, and returns the queries in the order of `asks`.
///
/// `follow` is called as each question's turn comes, with its index: whom to tell of its socket, and what may end it
/// early. Nobody follows: `|_, _| (Unobserved, std::future::pending())`.
pub async fn ask_all<O, E>(asks: &[Ask], follow: impl Fn(usize, &Ask) -> (O, E)) -> Vec<Query>
where
    O: Observer,
    E: Future<Output = Evidence>,
{
    let follow = &follow;
    // Made before the stream, not by it: a closure of the stream's would cost the whole future its Send.
    let asked: Vec<_> = asks
        .iter()
        .enumerate()
        .map(|(index, one)| async move {
            let (observer, ended) = follow(index, one);
            ask(&one.vantage, &one.question, &observer, ended).await
        })
        .collect();
    stream::iter(asked).buffered(CONCURRENCY).collect().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::{UNKNOWN_NETNS, Unobserved};

    fn vantage(name: &str, kind: VantageKind) -> Vantage {
        Vantage { name: name.into(), kind, netns_path: None, netns: UNKNOWN_NETNS, interface: None }
    }

    #[test]
    fn every_vantage_asks_every_address_over_both_transports() {
        let vantages = [vantage("coredns", VantageKind::Coredns), vantage("loop", VantageKind::NodeLoopback)];
        let targets =
            Targets { addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()], port: 53 };
        let asks = plan(&vantages, &targets, &Wanted::default());
        let seen: Vec<String> = asks
            .iter()
            .map(|ask| {
                let question = &ask.question;
                format!("{} {} {} {}", ask.vantage.name, question.address, question.transport, question.qname)
            })
            .collect();
        assert_eq!(
            seen,
            [
                "coredns 192.0.2.1:53 udp example.com",
                "coredns 192.0.2.1:53 tcp example.com",
                "coredns [2001:db8::1]:53 udp example.com",
                "coredns [2001:db8::1]:53 tcp example.com",
                "loop 127.0.0.53:53 udp example.com",
                "loop 127.0.0.53:53 tcp example.com",
                "coredns 192.0.2.1:53 udp whoami.ds.akahelp.net",
                "coredns [2001:db8::1]:53 udp whoami.ds.akahelp.net",
            ]
        );
    }

    #[test]
    fn nothing_wanted_is_nothing_asked() {
        let none = Wanted { names: Vec::new(), ..Wanted::default() };
        assert_eq!(plan(&[vantage("node", VantageKind::Node)], &Targets::default(), &none), []);
    }

    #[test]
    fn asking_can_be_spawned() {
        fn spawnable<T: Send + 'static>(_: T) {}
        spawnable(async { ask_all(&[], |_, _| (Unobserved, std::future::pending())).await });
        spawnable(async {
            let asks = plan(&[], &Targets::default(), &Wanted::default());
            for one in &asks {
                ask(&one.vantage, &one.question, &Unobserved, std::future::pending()).await;
            }
        });
    }
}
