//! Against servers on loopback that tell the truth, refuse, and lie.

use std::{fs, io, path::Path, sync::Arc, time::Instant};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer},
};

use super::*;

/// Long for a loopback server on a busy machine, and short for a test.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone)]
enum Reply {
    Answer(u16, String),
    /// Raw bytes, and the end of the connection.
    Raw(Vec<u8>),
    /// Of so many bytes, in chunks.
    Long(usize),
    Nothing,
}

fn json(value: &serde_json::Value) -> Reply {
    Reply::Answer(200, value.to_string())
}

fn refusal(status: u16, message: &str) -> Reply {
    Reply::Answer(status, serde_json::json!({ "kind": "Status", "message": message }).to_string())
}

type Answers = dyn Fn(&str) -> Reply + Send + Sync;

async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, answers: Arc<Answers>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (answers, tls) = (Arc::clone(&answers), tls.clone());
        tokio::spawn(async move {
            match tls {
                Some(tls) => answer(tls.accept(stream).await?, &*answers).await,
                None => answer(stream, &*answers).await,
            }
        });
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, answers: &Answers) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    assert!(head.to_ascii_lowercase().contains("authorization: bearer secret-token"), "{head}");
    match answers(head.split(' ').nth(1).unwrap_or_default()) {
        Reply::Answer(status, body) => {
            let length = body.len();
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            stream.write_all(format!("{head}{body}").as_bytes()).await?;
        }
        Reply::Raw(bytes) => stream.write_all(&bytes).await?,
        Reply::Long(bytes) => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
            let chunk = [b"10000\r\n".as_slice(), &[b' '; 1 << 16], b"\r\n"].concat();
            for _ in 0..bytes >> 16 {
                stream.write_all(&chunk).await?;
            }
            stream.write_all(b"0\r\n\r\n").await?;
        }
        Reply::Nothing => std::future::pending().await,
    }
    stream.shutdown().await
}

fn kubeconfig(directory: &Path, server: &str, user: &str) -> PathBuf {
    let path = directory.join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: '{server}'}}}}]\n\
         users: [{{name: u, user: {user}}}]\n"
    );
    fs::write(&path, text).unwrap();
    path
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn ask_within(
    limit: Duration,
    namespace: Option<&str>,
    answers: impl Fn(&str) -> Reply + Send + Sync + 'static,
) -> Found {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(serve(listener, None, Arc::new(answers)));
        let kubeconfigs = vec![kubeconfig(dir.path(), &server, "{token: secret-token}")];
        let cluster = Cluster { kubeconfigs, cilium_namespace: namespace.map(str::to_owned) };
        api::ask_within(&cluster, limit).await
    })
}

fn ask(answers: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Found {
    ask_within(PATIENCE, None, answers)
}

fn pod(name: &str, node: Option<&str>, ready: &str) -> serde_json::Value {
    serde_json::json!({
        "metadata": { "name": name, "namespace": "kube-system", "labels": { "k8s-app": "kube-dns" } },
        "spec": { "nodeName": node, "containers": [] },
        "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": ready }] },
    })
}

/// A cluster as it is, with Cilium in `namespace`.
fn truth(namespace: &'static str) -> impl Fn(&str) -> Reply + Clone {
    let settings = serde_json::json!({ "data": { "routing-mode": "native", "local-max-addr-scope": "254" } });
    let corefile = serde_json::json!({ "data": { "Corefile": ".:53 {\n forward . 169.254.116.108\n}" } });
    let pods = serde_json::json!({ "items": [pod("c-2", Some("n3"), "True"), pod("c-1", Some("n2"), "False"), pod("c-0", None, "False")] });
    let node_configs = serde_json::json!({ "items": [{ "spec": { "defaults": { "local-max-addr-scope": "252" } } }] });
    move |path| match path.split('?').next().unwrap() {
        path if path == format!("/api/v1/namespaces/{namespace}/configmaps/cilium-config") => json(&settings),
        path if path == format!("/apis/cilium.io/v2alpha1/namespaces/{namespace}/ciliumnodeconfigs") => {
            json(&node_configs)
        }
        "/api/v1/namespaces/kube-system/configmaps/coredns" => json(&corefile),
        "/api/v1/namespaces/kube-system/pods" if path.contains("labelSelector=k8s-app%3Dkube-dns") => json(&pods),
        _ => refusal(404, "not found"),
    }
}

#[test]
fn settings_corefile_and_pods_are_found() {
    let found = ask(truth("kube-system"));
    let config = found.cilium_config.get().expect("there");
    assert_eq!(config.map.name, "kube-system/cilium-config");
    assert_eq!(config.map.data["routing-mode"], "native");
    assert_eq!((config.per_node.as_slice(), &config.unread), (&["local-max-addr-scope".to_owned()][..], &None));
    assert_eq!(found.corefile.get().expect("there").name, "kube-system/coredns");
    let pods = found.coredns_pods.get().expect("there");
    let pods: Vec<_> = pods.iter().map(|pod| (pod.name.as_str(), pod.node.as_deref(), pod.ready)).collect();
    assert_eq!(pods, [("c-0", None, false), ("c-1", Some("n2"), false), ("c-2", Some("n3"), true)]);
    assert!(found.server.get().expect("there").starts_with("127.0.0.1:"));
}

#[test]
fn cilium_is_looked_for_in_its_usual_namespaces_or_in_the_one_that_is_named() {
    let place = |found: Found| found.facts().cilium_config;
    assert_eq!(place(ask(truth("cilium"))).get().expect("there"), "cilium/cilium-config");
    let named = ask_within(PATIENCE, Some("net"), truth("net"));
    assert_eq!(place(named).get().expect("there"), "net/cilium-config");
    let elsewhere = place(ask_within(PATIENCE, Some("net"), truth("kube-system")));
    assert!(elsewhere.why().expect("not there").contains("404"), "{elsewhere:?}");
    // Who may not look into the second namespace learns that the first has none.
    let refused = ask(|path| match path.contains("namespaces/cilium/") {
        true => refusal(403, "no"),
        false => refusal(404, "no"),
    });
    assert!(refused.cilium_config.why().expect("not there").contains("404"), "{refused:?}");
}

#[test]
fn a_node_config_that_cannot_be_read_is_told() {
    let answers = truth("kube-system");
    let found = ask(move |path| match path.contains("ciliumnodeconfigs") {
        true => refusal(403, "ciliumnodeconfigs.cilium.io is forbidden"),
        false => answers(path),
    });
    let unread = found.cilium_config.get().expect("there").unread.clone().expect("told");
    assert!(unread.contains("CiliumNodeConfigs in kube-system") && unread.contains("403"), "{unread}");
}

#[test]
fn each_refusal_is_explained() {
    let forbidden = "configmaps \"coredns\" is forbidden: User \"system:serviceaccount:x:y\" cannot get";
    for (reply, expected) in [
        (refusal(401, "Unauthorized"), "has the token expired?"),
        (
            refusal(403, forbidden),
            "\"system:serviceaccount:x:y\" cannot get; the rights that are needed stand in deploy/",
        ),
        (refusal(404, "no"), "there is none (404 Not Found)"),
        (refusal(500, "etcd\nis away"), "500 Internal Server Error: etcd is away"),
        (Reply::Answer(503, "plain".into()), "503 Service Unavailable"),
        (Reply::Answer(302, String::new()), "302 Found"),
        (Reply::Answer(200, "{\"data\": {\"a\": ".into()), "the answer is not what it should be: EOF"),
        (Reply::Answer(200, "\"text\"".into()), "the answer is not what it should be"),
        (Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"data\"".to_vec()), "the answer broke off"),
        (Reply::Raw(b"SSH-2.0-OpenSSH\r\n".to_vec()), "HTTP version"),
        (Reply::Raw(Vec::new()), "connection closed"),
        (Reply::Long(10 << 20), "longer than 4 MiB"),
    ] {
        let found = ask(move |_| reply.clone());
        let Kubernetes { cilium_config, corefile, coredns_pods, .. } = found.facts();
        for why in [cilium_config.why(), corefile.why(), coredns_pods.why()] {
            let why = why.unwrap_or_else(|| panic!("{expected}: known"));
            assert!(why.contains(expected), "{expected} is not in {why}");
        }
    }
}

#[test]
fn a_server_that_hangs_is_given_up_and_what_came_is_kept() {
    let answers = truth("kube-system");
    let started = Instant::now();
    let found = ask_within(Duration::from_millis(500), None, move |path| match path.contains("/pods") {
        true => Reply::Nothing,
        false => answers(path),
    });
    assert_eq!(found.coredns_pods.why(), Some("no answer within 500ms"));
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
    assert!(found.corefile.get().is_some(), "{found:?}");
}

/// Nobody is asked: what is wrong stands in the file.
fn refused_file(cluster: &Cluster) -> String {
    let found = run(api::ask_within(cluster, PATIENCE));
    found.server.why().expect("it cannot be asked").to_owned()
}

#[test]
fn a_kubeconfig_that_is_none_is_told_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let broken = dir.path().join("broken");
    fs::write(&broken, "clusters: {").unwrap();
    let empty = dir.path().join("empty");
    fs::write(&empty, "{}").unwrap();
    for path in [dir.path().join("missing"), dir.path().to_owned(), fifo, broken, empty] {
        let why = refused_file(&Cluster { kubeconfigs: vec![path.clone()], ..Cluster::default() });
        assert!(why.contains(&path.display().to_string()), "{why}");
    }
}

#[test]
fn a_kubeconfig_runs_no_program() {
    let dir = tempfile::tempdir().unwrap();
    let ran = dir.path().join("ran");
    let user = format!(
        "{{exec: {{apiVersion: client.authentication.k8s.io/v1, command: touch, args: [{}], interactiveMode: Never}}}}",
        ran.display()
    );
    let kubeconfigs = vec![kubeconfig(dir.path(), "http://127.0.0.1:1", &user)];
    let why = refused_file(&Cluster { kubeconfigs, ..Cluster::default() });
    assert!(why.contains("`exec`") && !ran.exists(), "{why}");
}

#[test]
fn a_server_that_cannot_be_reached_or_trusted_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let ask = |server: &str| {
        let kubeconfigs = vec![kubeconfig(dir.path(), server, "{token: secret-token}")];
        let found = run(api::ask_within(&Cluster { kubeconfigs, ..Cluster::default() }, PATIENCE));
        found.corefile.why().expect("not reached").to_owned()
    };
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let why = ask(&format!("http://{free}"));
    assert!(why.contains("Connection refused"), "{why}");
}

#[test]
fn a_server_is_asked_over_tls_where_its_certificate_is_the_clusters() {
    let dir = tempfile::tempdir().unwrap();
    let [own, other] = [0, 1].map(|_| rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap());
    let ask = |trusted: &str| {
        fs::write(dir.path().join("ca.crt"), trusted).unwrap();
        run(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
            let config = ServerConfig::builder().with_no_client_auth();
            let config = config.with_single_cert(vec![own.cert.der().clone()], key.into()).unwrap();
            // Beside the kubeconfig, as kubectl takes a path.
            let server = format!("https://{}', certificate-authority: 'ca.crt", listener.local_addr().unwrap());
            let tls = TlsAcceptor::from(Arc::new(config));
            tokio::spawn(serve(listener, Some(tls), Arc::new(truth("kube-system"))));
            let kubeconfigs = vec![kubeconfig(dir.path(), &server, "{token: secret-token}")];
            api::ask_within(&Cluster { kubeconfigs, ..Cluster::default() }, PATIENCE).await
        })
    };
    let found = ask(&own.cert.pem());
    assert_eq!(found.coredns_pods.get().map(Vec::len), Some(3), "{found:?}");
    let strange = ask(&other.cert.pem());
    let why = strange.coredns_pods.why().expect("not trusted");
    assert!(why.contains("invalid peer certificate"), "{why}");
    let broken = ask("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let why = broken.coredns_pods.why().expect("no certificate");
    assert!(why.contains("certificate"), "{why}");
    // What answers is no TLS.
    let found = ask_within_tls_of_a_plain_server(&own.cert.pem());
    assert!(found.coredns_pods.why().expect("no TLS").contains("corrupt message"), "{found:?}");
}

fn ask_within_tls_of_a_plain_server(trusted: &str) -> Found {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ca.crt"), trusted).unwrap();
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("https://{}', certificate-authority: 'ca.crt", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _sent = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
                // Its end would be a reset, before the answer is read.
                let _rest = stream.read_to_end(&mut Vec::new()).await;
            }
        });
        let kubeconfigs = vec![kubeconfig(dir.path(), &server, "{token: secret-token}")];
        api::ask_within(&Cluster { kubeconfigs, ..Cluster::default() }, PATIENCE).await
    })
}
