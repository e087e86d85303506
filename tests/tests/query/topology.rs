//! Two namespaces, one cable: a pod that asks and a node that serves. Gone when dropped: nothing but open files keeps
//! the namespaces.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::{AsFd as _, AsRawFd as _},
};

use hostdns_probe::{
    netns::Netns,
    query::{Vantage, VantageKind},
};
use rtnetlink::{LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::dns_server::Server;

pub(crate) const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
const NODE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
pub(crate) const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(NODE), 53);
/// Routed to the node, which does not forward: the kernel there drops it and says nothing (net/ipv4/route.c, ip_error).
pub(crate) const BLACKHOLE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 53);
pub(crate) const NO_ROUTE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), 53);

pub(crate) struct Topology {
    pub(crate) pod: Vantage,
    server: Server,
    _pod: Netns,
    pub(crate) node: Netns,
}

impl Topology {
    pub(crate) fn with_server() -> Self {
        let pod = Netns::new().expect("these tests need root");
        let node = Netns::new().unwrap();
        let node_fd = node.as_fd().as_raw_fd();
        within(&pod, async move |netlink| {
            netlink.link().add(LinkVeth::new("pod", "node").build()).execute().await.unwrap();
            let node_side = index("node");
            netlink
                .link()
                .set(LinkUnspec::new_with_index(node_side).setns_by_fd(node_fd).build())
                .execute()
                .await
                .unwrap();
            address_up(&netlink, "pod", CLIENT).await;
        });
        within(&node, async |netlink| {
            // What the node sends to its own address goes through lo.
            netlink.link().set(LinkUnspec::new_with_index(1).up().build()).execute().await.unwrap();
            address_up(&netlink, "node", NODE.into()).await;
        });
        within(&pod, async |netlink| {
            let blackhole = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(Ipv4Addr::new(192, 0, 2, 0), 24)
                .gateway(NODE);
            netlink.route().add(blackhole.build()).execute().await.unwrap();
        });
        let server = node.run(|| Server::start(SERVER)).unwrap();
        let vantage = Vantage {
            name: "pod".into(),
            kind: VantageKind::Coredns,
            netns_path: Some(format!("/proc/self/fd/{}", pod.as_fd().as_raw_fd()).into()),
            netns: pod.id().unwrap(),
            interface: None,
        };
        Self { pod: vantage, server, _pod: pod, node }
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }
}

/// Runs netlink work inside a namespace, on a runtime of its own there.
fn within(netns: &Netns, work: impl AsyncFnOnce(rtnetlink::Handle) + Send) {
    netns
        .run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (connection, netlink, _messages) = rtnetlink::new_connection().unwrap();
                tokio::spawn(connection);
                work(netlink).await;
            });
        })
        .unwrap();
}

fn index(name: &str) -> u32 {
    std::fs::read_to_string(format!("/proc/thread-self/net/dev_snmp6/{name}"))
        .unwrap()
        .lines()
        .find_map(|line| line.strip_prefix("ifIndex"))
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

async fn address_up(netlink: &rtnetlink::Handle, name: &str, address: IpAddr) {
    let index = index(name);
    netlink.address().add(index, address, 24).execute().await.unwrap();
    netlink.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await.unwrap();
}
