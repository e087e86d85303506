//! One question, asked by hickory through a socket of the vantage's namespace.

use std::{future::Future, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use hickory_net::{
    NetError,
    xfer::{DnsHandle as _, FirstAnswer as _},
};
use hickory_proto::{
    op::{DnsRequestOptions, Query as DnsQuestion},
    rr::{Name, RecordType},
};
use hickory_resolver::{
    NameServerPool, PoolContext, TlsConfig,
    config::{ConnectionConfig, NameServerConfig, ResolverOpts},
};

use super::{
    Query, Vantage,
    connect::Connections,
    outcome,
    socket::{self, Asking, Socket},
    wire::Wire,
};
use crate::{ended::Ended, facts::Transport};

/// How long a query may take where nothing ends it sooner.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// A query over UDP that got no answer is sent once more after this, with the same id from the same socket, and never
/// again. Over TCP the kernel resends the SYN (after 1 s and 3 s) and the data.
pub const RETRANSMIT_AFTER: Duration = Duration::from_secs(1);

/// What is asked, of whom and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Taken as fully qualified, with or without the last dot: no search domain is ever added.
    pub qname: String,
    pub qtype: RecordType,
    pub address: SocketAddr,
    /// This one alone: a truncated answer over UDP is recorded, and not asked again over TCP.
    pub transport: Transport,
    /// Of the whole query, retransmission included.
    pub timeout: Duration,
}

/// Told of the asking socket, so that what it sends can be followed.
pub trait Observer: Send + Sync {
    /// Called once per query that gets a socket, before its first packet. The port of `local` is what the trace
    /// follows; its address is unspecified where the transport is TCP. `socket_cookie` is what
    /// `bpf_get_socket_cookie` will say (0: the kernel does not tell).
    fn bound(&self, transport: Transport, local: SocketAddr, socket_cookie: u64);
}

impl<F: Fn(Transport, SocketAddr, u64) + Send + Sync> Observer for F {
    fn bound(&self, transport: Transport, local: SocketAddr, socket_cookie: u64) {
        self(transport, local, socket_cookie);
    }
}

/// Nobody follows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn bound(&self, _transport: Transport, _local: SocketAddr, _socket_cookie: u64) {}
}

/// What ends a query before its answer or its timeout: its packet was seen to die, or to leave the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    pub ended: Ended,
    /// What was seen: "left the node through eth0".
    pub note: String,
}

/// Why the asking stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// The response is on record.
    Heard,
    Evidence(Evidence),
    Hickory(Result<(), NetError>),
    Timeout,
    Socket(socket::Error),
    /// The name cannot be asked.
    Name(String),
}

/// Asks, and says what became of it. Returns as soon as there is an answer or an error, `ended` says what became of the
/// packet, or the time is up; dropping the future drops the socket.
///
/// An answer that came before the evidence is recorded as one: which of the two weighs more is judged elsewhere.
pub async fn ask(
    vantage: &Vantage,
    question: &Question,
    observer: &dyn Observer,
    ended: impl Future<Output = Evidence>,
) -> Query {
    let wire = Arc::new(Wire::default());
    let stop = tokio::select! {
        biased;
        () = wire.heard() => Stop::Heard,
        stop = attempt(vantage, question, observer, &wire) => stop,
        evidence = ended => Stop::Evidence(evidence),
        () = tokio::time::sleep(question.timeout) => Stop::Timeout,
    };
    outcome::query(vantage, question, wire.seen(), stop)
}

async fn attempt(vantage: &Vantage, question: &Question, observer: &dyn Observer, wire: &Arc<Wire>) -> Stop {
    let name = match name(&question.qname) {
        Ok(name) => name,
        Err(why) => return Stop::Name(why),
    };
    let asking = socket::open(vantage.netns_path.clone(), question.address, question.transport).await;
    let Asking { socket, local, cookie } = match asking {
        Ok(asking) => asking,
        Err(error) => return Stop::Socket(error),
    };
    wire.has_source(local);
    observer.bound(question.transport, local, cookie);

    let udp = match &socket {
        Socket::Udp(socket) => Some(Arc::clone(socket)),
        Socket::Tcp(_) => None,
    };
    let icmp_error = async move {
        match udp {
            Some(socket) => socket::icmp_error(&socket).await,
            None => std::future::pending().await,
        }
    };
    let pool = match pool(question, Connections::new(socket, Arc::clone(wire))) {
        Ok(pool) => pool,
        Err(error) => return Stop::Hickory(Err(error)),
    };
    let mut options = DnsRequestOptions::default();
    options.recursion_desired = true;
    let answer = pin!(pool.lookup(DnsQuestion::query(name, question.qtype), options).first_answer());
    tokio::select! {
        answer = answer => Stop::Hickory(answer.map(|_response| ())),
        error = icmp_error => Stop::Hickory(Err(wire.fails(error).into())),
    }
}

/// hickory-resolver's pool, with one server and one transport. Not its `Resolver`: that one answers `localhost` and
/// `invalid` without asking, asks again for a CNAME's target, repeats a failed query and keeps a cache.
fn pool(question: &Question, connections: Connections) -> Result<NameServerPool<Connections>, NetError> {
    let mut connection = match question.transport {
        Transport::Udp => ConnectionConfig::udp(),
        Transport::Tcp => ConnectionConfig::tcp(),
    };
    connection.port = question.address.port();
    let server = NameServerConfig::new(question.address.ip(), true, vec![connection]);

    let mut options = ResolverOpts::default();
    // Ours, around it, ends the query; hickory's must not come first and blur which of the two it was.
    options.timeout = question.timeout + Duration::from_secs(1);
    options.num_concurrent_reqs = 1;
    options.case_randomization = false;
    let context = Arc::new(PoolContext::new(options, TlsConfig::new()?));
    Ok(NameServerPool::from_config([server], context, connections))
}

fn name(qname: &str) -> Result<Name, String> {
    let mut name = Name::from_utf8(qname)
        .map_err(|error| format!("`{qname}` is not a DNS name ({error}); give one with --qname"))?;
    name.set_fqdn(true);
    Ok(name)
}
