//! `check` beside a Kubernetes API: a fake one inside the lab's node, which tells the truth or hangs.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
};

use end_to_end::{is_root_or_skips, lab::Lab, stderr};
use serde_json::{Value, json};

/// What the API has at a path; none: 404.
type Objects = fn(&str) -> Option<Value>;

/// Serves on loopback of the lab's node until this process ends.
fn serve(lab: &Lab, objects: Option<Objects>) -> SocketAddr {
    let bind = || TcpListener::bind("127.0.0.1:0");
    let listener = lab.netns(None).run(bind).expect("the node's namespace").expect("a socket in it");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        // Connections that are never answered stay open as long as this lives.
        let mut silent = Vec::new();
        for stream in listener.incoming().flatten() {
            match objects {
                Some(objects) => {
                    std::thread::spawn(move || answer(&stream, objects));
                }
                None => silent.push(stream),
            }
        }
    });
    address
}

fn answer(mut stream: &TcpStream, objects: Objects) -> std::io::Result<()> {
    let mut head = BufReader::new(stream).lines();
    let request = head.next().transpose()?.unwrap_or_default();
    for line in head.by_ref() {
        if line?.is_empty() {
            break;
        }
    }
    let path = request.split(' ').nth(1).and_then(|target| target.split('?').next()).unwrap_or_default();
    let (status, body) = match objects(path) {
        Some(object) => ("200 OK", object),
        None => ("404 Not Found", json!({ "kind": "Status", "message": "not found" })),
    };
    let body = body.to_string();
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

/// A cluster whose ConfigMap was changed since the agent's start, with CoreDNS on two other nodes.
fn changed(path: &str) -> Option<Value> {
    let pod = |name: &str, node: &str| {
        json!({
            "metadata": { "name": name, "namespace": "kube-system" },
            "spec": { "nodeName": node },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
        })
    };
    Some(match path {
        "/api/v1/namespaces/kube-system/configmaps/cilium-config" => {
            json!({ "data": { "enable-bpf-masquerade": "true", "local-max-addr-scope": "254" } })
        }
        "/api/v1/namespaces/kube-system/configmaps/coredns" => {
            json!({ "data": { "Corefile": ".:53 {\n    forward . /etc/resolv.conf\n}\n" } })
        }
        "/api/v1/namespaces/kube-system/pods" => {
            json!({ "items": [pod("coredns-1", "worker-2"), pod("coredns-2", "worker-3")] })
        }
        _ => return None,
    })
}

/// Of one finding, joined; empty where there is no such finding.
fn evidence(report: &Value, code: &str) -> String {
    let all = report["findings"].as_array().expect("findings");
    let found = all.iter().find(|finding| finding["code"] == code);
    let lines = found.and_then(|finding| finding["evidence"].as_array());
    lines.into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
}

struct Cluster {
    lab: Lab,
    kubeconfig: std::path::PathBuf,
}

impl Cluster {
    fn with(name: &str, objects: Option<Objects>) -> Self {
        let lab = Lab::up("no-coredns-here", name);
        let server = serve(&lab, objects);
        let kubeconfig = std::env::temp_dir().join(format!("hostdns-probe-{name}-{}", std::process::id()));
        let text = format!(
            "current-context: lab\n\
             contexts: [{{name: lab, context: {{cluster: lab, user: lab}}}}]\n\
             clusters: [{{name: lab, cluster: {{server: 'http://{server}'}}}}]\n\
             users: [{{name: lab, user: {{token: x}}}}]\n"
        );
        fs::write(&kubeconfig, text).expect("a kubeconfig");
        Self { lab, kubeconfig }
    }

    fn check(&self) -> Value {
        let (report, output) = self.lab.check(&["--kubeconfig", self.kubeconfig.to_str().expect("UTF-8")]);
        assert_eq!(stderr(&output), "", "what the API says is in the report");
        report
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.kubeconfig);
    }
}

#[test]
fn a_config_map_that_the_agent_does_not_have_yet_and_where_coredns_is() {
    if !is_root_or_skips("a_config_map_that_the_agent_does_not_have_yet_and_where_coredns_is") {
        return;
    }
    let cluster = Cluster::with("cluster", Some(changed));
    let report = cluster.check();
    let pending = evidence(&report, "HDP203");
    let told = "local-max-addr-scope in ConfigMap kube-system/cilium-config: 254";
    assert!(pending.contains(told), "{pending}");
    assert!(!pending.contains("masquerading"), "what is the same is told too: {pending}");
    let elsewhere = evidence(&report, "HDP301");
    assert!(elsewhere.contains("CoreDNS is ready on worker-2, worker-3 (Kubernetes API)"), "{elsewhere}");
    assert_eq!(report["facts"]["kubernetes"]["coredns_pods"]["known"][0]["node"], "worker-2");
    assert_eq!(evidence(&report, "HDP006"), "");
    assert_eq!(report["verdict"]["status"], "pass", "{}", report["verdict"]);

    // Without a configuration nobody is asked, and nothing is missed.
    let (alone, _output) = cluster.lab.check(&[]);
    assert_eq!(alone["facts"]["kubernetes"]["coredns_pods"]["unavailable"], "not in a cluster and no --kubeconfig");
    assert_eq!((evidence(&alone, "HDP203"), evidence(&alone, "HDP006")), (String::new(), String::new()));
}

#[test]
fn an_api_that_hangs_costs_a_second_and_what_it_would_have_told() {
    if !is_root_or_skips("an_api_that_hangs_costs_a_second_and_what_it_would_have_told") {
        return;
    }
    let cluster = Cluster::with("cluster-silent", None);
    let report = cluster.check();
    assert!(evidence(&report, "HDP006").contains("no answer within 1s"), "{}", evidence(&report, "HDP006"));
    assert_eq!(report["verdict"]["status"], "pass", "{}", report["verdict"]);
    assert!(evidence(&report, "HDP301").contains("pods found"), "{}", report["findings"]);
}
