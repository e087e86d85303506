//! Records what the correlation works on, from labs: `record-streams [STREAM]...`, as root, writes each stream anew to
//! `probe-user/src/trace/correlate/recorded/STREAM.jsonl`. The first line is the node's topology, each other one an event.
//! It needs the command beside it: `cargo build --workspace --all-targets`.

use std::{
    env, fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, UdpSocket},
    path::Path,
    process::Stdio,
};

use anyhow::{Context as _, bail};
use end_to_end::{
    lab::Lab,
    trace::{HOST_DNS, ask_at},
};
use hostdns_probe::{
    facts::{self, Sources, is_on_lo},
    target::{HOST_DNS_V6, Targets},
    trace::{
        event::{DeviceRole, Event, Topology},
        hooking,
        tracer::{LATENCY, Tracer},
    },
};

/// Says to the process inside the lab that it is inside.
const INSIDE: &str = "__inside";

/// The stream whose answers over UDP are truncated: the lab's servers cut nothing, so one of our own takes their place.
const TRUNCATED: &str = "truncated";

const V6: &str = "[fd54:616c:6f73:0:204f:5320:444e:531]:53";

/// A server and a transport.
type Query = (&'static str, &'static str);

/// Name, scenario, and what a pod asks there.
const STREAMS: &[(&str, &str, &[Query])] = &[
    ("healthy-udp", "healthy-known-address", &[(HOST_DNS, "udp")]),
    ("healthy-tcp", "healthy-known-address", &[(HOST_DNS, "tcp")]),
    ("leak-udp", "issue-36761-leak", &[(HOST_DNS, "udp")]),
    ("leak-tcp", "issue-36761-leak", &[(HOST_DNS, "tcp")]),
    ("leak-answered-outside", "leak-answered-outside", &[(HOST_DNS, "udp")]),
    ("drop-udp", "issue-36761-drop", &[(HOST_DNS, "udp")]),
    ("reply-lost-udp", "reply-lost", &[(HOST_DNS, "udp")]),
    ("reply-lost-tcp", "reply-lost", &[(HOST_DNS, "tcp")]),
    ("nobody-listens", "nobody-listens", &[(HOST_DNS, "udp"), (HOST_DNS, "tcp")]),
    ("policy-denied", "policy-denied", &[(HOST_DNS, "udp")]),
    ("ipv6", "ipv6-host-dns", &[(V6, "udp"), (V6, "tcp")]),
    (TRUNCATED, "nobody-listens", &[(HOST_DNS, "udp"), (HOST_DNS, "tcp")]),
    ("several", "healthy-known-address", &[(HOST_DNS, "udp"), (HOST_DNS, "tcp"), (HOST_DNS, "udp")]),
];

fn main() -> anyhow::Result<()> {
    let wanted: Vec<String> = env::args().skip(1).collect();
    if wanted.first().is_some_and(|first| first == INSIDE) {
        return inside(wanted.contains(&TRUNCATED.to_owned()));
    }
    if let Some(unknown) = wanted.iter().find(|name| !STREAMS.iter().any(|(known, ..)| known == name)) {
        bail!("no stream {unknown}");
    }
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../probe-user/src/trace/correlate/recorded");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    for (name, scenario, queries) in
        STREAMS.iter().filter(|(name, ..)| wanted.is_empty() || wanted.iter().any(|w| w == name))
    {
        let stream = record(name, scenario, queries).with_context(|| format!("{name} was not recorded"))?;
        let path = directory.join(format!("{name}.jsonl"));
        fs::write(&path, stream).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

fn record(name: &str, scenario: &str, queries: &[Query]) -> anyhow::Result<Vec<u8>> {
    const LAB: &str = "record-streams";
    let lab = Lab::up(scenario, LAB);
    let mut command = lab.command([env::current_exe()?.as_os_str(), INSIDE.as_ref(), name.as_ref()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("it is piped")?).lines();
    let first = lines.next().context("the tracer does not start")??;
    if first != "ready" {
        bail!("the tracer says {first}");
    }
    for (server, transport) in queries {
        ask_at(LAB, "app", server, transport);
    }
    drop(child.stdin.take());
    let mut stream = Vec::new();
    for line in lines {
        writeln!(stream, "{}", line?)?;
    }
    if !child.wait()?.success() {
        bail!("the tracer failed");
    }
    Ok(stream)
}

/// In the lab's node: says `ready`, traces until its input ends, prints what it saw.
fn inside(truncates: bool) -> anyhow::Result<()> {
    if truncates {
        serve_truncated()?;
    }
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?.block_on(async {
        let mut targets = Targets::default();
        targets.addresses.extend(is_on_lo(HOST_DNS_V6).then_some(HOST_DNS_V6));
        let sources = Sources { targets: targets.clone(), ..Sources::default() };
        let facts = facts::gather(&sources).await;
        let mut topology = Topology::from_facts(&facts, &targets);
        let pods = topology.devices.iter().filter(|device| device.role == DeviceRole::Pod);
        let pods: Vec<&str> = pods.map(|device| device.name.as_str()).collect();
        let (config, _) = hooking::config(&facts, &targets, &topology, &pods, &[], false);
        let tracer = Tracer::start(config).await?;
        println!("ready");
        let closed = tokio::task::spawn_blocking(|| io::stdin().lines().count());
        tokio::pin!(closed);
        let mut events: Vec<Event> = Vec::new();
        loop {
            tokio::select! {
                Some(event) = tracer.recv() => events.push(event),
                _ = &mut closed => break,
            }
        }
        while let Ok(Some(event)) = tokio::time::timeout(LATENCY * 20, tracer.recv()).await {
            events.push(event);
        }
        let lost = tracer.counts().lost + tracer.other_counts().lost;
        topology.cover = hooking::cover(&tracer.hooks(), &topology, lost == 0);
        tracer.detach().await;
        println!("{}", serde_json::to_string(&topology)?);
        for event in &events {
            println!("{}", serde_json::to_string(event)?);
        }
        Ok(())
    })
}

/// Answers what comes to the address under test: over UDP with TC set, over TCP without (RFC 1035, 4.1.1 and 4.2.2).
fn serve_truncated() -> anyhow::Result<()> {
    const QR_RD: u8 = 0x81;
    const TC: u8 = 2;
    let datagrams = UdpSocket::bind(HOST_DNS).context("no UDP socket at the address under test")?;
    let connections = TcpListener::bind(HOST_DNS).context("no TCP socket at the address under test")?;
    std::thread::spawn(move || -> io::Result<()> {
        let mut message = [0; 512];
        loop {
            let (len, client) = datagrams.recv_from(&mut message)?;
            message[2] = QR_RD | TC;
            datagrams.send_to(&message[..len], client)?;
        }
    });
    std::thread::spawn(move || -> io::Result<()> {
        for connection in connections.incoming() {
            let (mut connection, mut message) = (connection?, [0; 512]);
            let len = connection.read(&mut message)?;
            message[4] = QR_RD; // behind the length and the id
            connection.write_all(&message[..len])?;
        }
        Ok(())
    });
    Ok(())
}
