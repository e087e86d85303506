//! An agent that does not do as agents do, on a socket of its own. The file system is shared with the lab's node.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tempfile::TempDir;

use crate::recording;

/// What becomes of one question; `path` is what was asked for.
pub(crate) type Answer = fn(path: &str, stream: &mut UnixStream);

pub(crate) const LIES: &[(&str, Answer, &str)] = &[
    ("cut", cut_short, "ends too early"),
    ("half", half_a_document, "is not JSON: EOF while parsing"),
    ("hang", hangs, "no answer within 1s"),
    ("drip", drips, "no answer within 1s"),
    ("10 MiB", ten_mebibytes, "longer than 4 MiB"),
    ("503", unavailable, "status 503"),
    ("gone", |_path, _stream| {}, "ends too early"),
];

/// Served until the process ends.
pub(crate) struct LyingAgent {
    pub(crate) socket: PathBuf,
    restarts: Arc<AtomicUsize>,
    _directory: TempDir,
}

impl LyingAgent {
    pub(crate) fn start(answer: Answer) -> Self {
        let (agent, listener) = Self::listening();
        serve(listener, answer);
        agent
    }

    /// Answers for its health, and is gone with its socket then; `meanwhile` happens, and it listens again.
    pub(crate) fn restarting(meanwhile: impl FnOnce() + Send + 'static) -> Self {
        let (agent, listener) = Self::listening();
        let (socket, restarts) = (agent.socket.clone(), Arc::clone(&agent.restarts));
        thread::spawn(move || {
            loop {
                let (mut stream, _) = listener.accept().unwrap();
                let asked = path_of(&mut stream);
                if asked != "/v1/healthz" {
                    continue;
                }
                whole(&recorded(&asked), &mut stream);
                break;
            }
            drop(listener);
            fs::remove_file(&socket).unwrap();
            meanwhile();
            let again = UnixListener::bind(&socket).unwrap();
            restarts.fetch_add(1, Ordering::SeqCst);
            serve(again, unavailable);
        });
        agent
    }

    /// How often it went away and came back.
    pub(crate) fn restarts(&self) -> usize {
        self.restarts.load(Ordering::SeqCst)
    }

    fn listening() -> (Self, UnixListener) {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("cilium.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        (Self { socket, restarts: Arc::default(), _directory: directory }, listener)
    }
}

fn serve(listener: UnixListener, answer: Answer) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || answer(&path_of(&mut stream), &mut stream));
        }
    });
}

fn path_of(stream: &mut UnixStream) -> String {
    let mut request = [0; 1024];
    let read = stream.read(&mut request).unwrap_or(0);
    let request = String::from_utf8_lossy(&request[..read]);
    request.split(' ').nth(1).unwrap_or_default().to_owned()
}

fn recorded(path: &str) -> Vec<u8> {
    let name = path.trim_start_matches("/v1/");
    fs::read(recording().join(format!("api/{name}.json"))).unwrap()
}

fn head(length: usize) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")
}

fn whole(body: &[u8], stream: &mut UnixStream) {
    let _gone = stream.write_all(head(body.len()).as_bytes()).and_then(|()| stream.write_all(body));
}

/// The connection ends in the middle of the body.
fn cut_short(path: &str, stream: &mut UnixStream) {
    let body = recorded(path);
    let _gone = stream.write_all(head(body.len()).as_bytes()).and_then(|()| stream.write_all(&body[..200]));
}

/// All of a length, but not all of the JSON.
fn half_a_document(path: &str, stream: &mut UnixStream) {
    let body = recorded(path);
    whole(&body[..body.len() / 2], stream);
}

fn hangs(_path: &str, stream: &mut UnixStream) {
    let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Le");
    // Until the other side has had enough.
    let _gone = stream.read(&mut [0; 1]);
}

/// Never done, never silent.
fn drips(_path: &str, stream: &mut UnixStream) {
    let _gone = stream.write_all(head(1_000_000).as_bytes());
    while stream.write_all(b" ").is_ok() {
        thread::sleep(Duration::from_millis(20));
    }
}

fn ten_mebibytes(_path: &str, stream: &mut UnixStream) {
    let body = format!("{{\"cilium\":{{\"msg\":\"9.9.9\"}},\"controllers\":[{}0]}}", "1,".repeat(5 << 20));
    whole(body.as_bytes(), stream);
}

fn unavailable(_path: &str, stream: &mut UnixStream) {
    let _gone = stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
}

/// As recorded, but for host routing, which it calls Legacy.
pub(crate) fn says_legacy(path: &str, stream: &mut UnixStream) {
    let mut body: serde_json::Value = serde_json::from_slice(&recorded(path)).unwrap();
    if path == "/v1/healthz" {
        body["routing"]["intra-host-routing-mode"] = "Legacy".into();
    } else {
        body["status"]["daemonConfigurationMap"]["EnableHostLegacyRouting"] = true.into();
    }
    whole(body.to_string().as_bytes(), stream);
}
