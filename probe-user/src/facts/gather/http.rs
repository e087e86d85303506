//! One GET over a unix socket, bounded in time and size. All that Cilium's agent API needs of HTTP/1.1 (RFC 9112).

use std::{io, path::Path, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};

/// Of an answer, in bytes. A node with hundreds of endpoints answers /v1/healthz with about one MiB.
const MAX: u64 = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{0}; is Cilium running on this node, and its socket mounted here? Name it with --cilium-socket")]
    Missing(io::Error),
    #[error("{0}: the socket is there, but no agent listens on it")]
    Refused(io::Error),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the answer is longer than {} MiB", MAX >> 20)]
    TooLong,
    #[error("the answer is not HTTP: {0}")]
    Malformed(&'static str),
    #[error("the agent answered with status {0}")]
    Status(u16),
}

/// The body of `GET path`.
pub(super) async fn get(socket: &Path, path: &str, limit: Duration) -> Result<Vec<u8>, Error> {
    timeout(limit, exchange(socket, path)).await.unwrap_or(Err(Error::Timeout(limit)))
}

async fn exchange(socket: &Path, path: &str) -> Result<Vec<u8>, Error> {
    let mut stream = UnixStream::connect(socket).await.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::Missing(e),
        io::ErrorKind::ConnectionRefused => Error::Refused(e),
        _ => Error::Io(e),
    })?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut received = Vec::with_capacity(64 << 10);
    let mut stream = stream.take(MAX + 1);
    loop {
        let ended = stream.read_buf(&mut received).await? == 0;
        if received.len() as u64 > MAX {
            return Err(Error::TooLong);
        }
        // A server may keep the connection open: the answer's own length tells its end.
        if let Some(body) = body(&received, ended)? {
            return Ok(body);
        }
        if ended {
            return Err(Error::Malformed("it ends too early"));
        }
    }
}

/// The body, when all of it is there.
fn body(received: &[u8], ended: bool) -> Result<Option<Vec<u8>>, Error> {
    let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = str::from_utf8(&received[..end]).map_err(|_| Error::Malformed("its head is not text"))?;
    let rest = &received[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok());
    match status {
        Some(200) => {}
        Some(status) => return Err(Error::Status(status)),
        None => return Err(Error::Malformed("it has no status")),
    }
    let headers: Vec<(String, &str)> =
        lines.filter_map(|line| line.split_once(':')).map(|(k, v)| (k.trim().to_ascii_lowercase(), v.trim())).collect();
    let header = |name| headers.iter().find(|(k, _)| k == name).map(|(_, v)| *v);
    if header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        return dechunk(rest);
    }
    match header("content-length") {
        Some(text) => {
            let length: usize = text.parse().map_err(|_| Error::Malformed("its Content-Length is not a number"))?;
            Ok(rest.get(..length).map(<[u8]>::to_vec))
        }
        None => Ok(ended.then(|| rest.to_vec())),
    }
}

fn dechunk(mut rest: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    let mut whole = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|window| window == b"\r\n") else { return Ok(None) };
        let line = str::from_utf8(&rest[..end]).map_err(|_| Error::Malformed("a chunk's size is not text"))?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| Error::Malformed("a chunk's size is not a number"))?;
        if size == 0 {
            return Ok(Some(whole));
        }
        let start = end + 2;
        let Some(after) = start.checked_add(size) else { return Err(Error::Malformed("a chunk is too long")) };
        let Some(chunk) = rest.get(start..after) else { return Ok(None) };
        whole.extend(chunk);
        rest = rest.get(after + 2..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    #[test]
    fn a_length_is_waited_for() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n";
        assert_eq!(body(&[head, &b"{\"a"[..]].concat(), false).unwrap(), None);
        assert_eq!(body(&[head, &b"{\"a\"}"[..]].concat(), false).unwrap().as_deref(), Some(&b"{\"a\""[..]));
    }

    #[test]
    fn chunks_are_joined() {
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{\"a\"\r\n3;x=y\r\n:1}\r\n0\r\n\r\n";
        assert_eq!(body(answer, false).unwrap().as_deref(), Some(&b"{\"a\":1}"[..]));
        assert_eq!(body(&answer[..answer.len() - 9], false).unwrap(), None);
    }

    #[test]
    fn a_refusal_is_told_by_its_status() {
        assert!(matches!(body(b"HTTP/1.1 503 Unavailable\r\n\r\n", true), Err(Error::Status(503))));
        assert!(matches!(body(b"SSH-2.0\r\n\r\n", true), Err(Error::Malformed(_))));
    }

    proptest::proptest! {
        #[test]
        fn any_answer_is_survived(rest in proptest::collection::vec(proptest::num::u8::ANY, 0..100), ended: bool) {
            let _plain = body(&rest, ended);
            let _chunked = dechunk(&rest);
        }
    }

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    #[test]
    fn an_agent_that_says_nothing_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cilium.sock");
        run(async {
            let _silent = UnixListener::bind(&path).unwrap();
            let error = get(&path, "/v1/healthz", Duration::from_millis(20)).await.unwrap_err();
            assert!(matches!(error, Error::Timeout(_)), "{error}");
        });
        let refused = run(get(&path, "/v1/healthz", Duration::from_secs(1))).unwrap_err();
        assert!(matches!(refused, Error::Refused(_)), "{refused}");
        let missing = run(get(Path::new("/nonexistent"), "/", Duration::from_secs(1))).unwrap_err();
        assert!(missing.to_string().contains("--cilium-socket"));
    }
}
