//! As much of HTTP/1.1 as a client of the agent's API needs: one GET per connection, then closed.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    time::Duration,
};

/// A client that is silent for so long is given up.
pub(super) const TIMEOUT: Duration = Duration::from_secs(2);

/// Longest request head read; Go's own limit is 1 MiB, clients of this API send a few hundred bytes.
const HEAD_LIMIT: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Bodies {
    pub(super) healthz: String,
    pub(super) config: String,
}

/// Reads one request and answers it.
pub(super) fn answer(mut stream: &UnixStream, bodies: &Bodies) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut head = Vec::new();
    let mut chunk = [0_u8; 1024];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") && head.len() < HEAD_LIMIT {
        let read = stream.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        head.extend_from_slice(chunk.get(..read).unwrap_or_default());
    }
    stream.write_all(&respond(&head, bodies))
}

/// The whole response to a request head.
fn respond(head: &[u8], bodies: &Bodies) -> Vec<u8> {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_ascii_whitespace();
    let method = words.next().unwrap_or_default();
    let target = words.next().unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    let (status, body) = match (method, path) {
        ("GET", "/v1/healthz") => ("200 OK", bodies.healthz.as_str()),
        ("GET", "/v1/config") => ("200 OK", bodies.config.as_str()),
        // The API's own words (go-openapi).
        _ => ("404 Not Found", r#"{"code":404,"message":"path was not found"}"#),
    };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(request: &str) -> String {
        let bodies = Bodies { healthz: "{\"h\":1}".into(), config: "{}".into() };
        String::from_utf8(respond(request.as_bytes(), &bodies)).expect("text")
    }

    #[test]
    fn what_it_knows_and_what_not() {
        let healthz = status("GET /v1/healthz?brief=true HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert!(healthz.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(healthz.contains("Content-Length: 7\r\n") && healthz.ends_with("\r\n\r\n{\"h\":1}"));
        assert!(status("GET /v1/endpoint HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
        assert!(status("PUT /v1/config HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
        assert!(status("\u{1}\r\n").starts_with("HTTP/1.1 404 "));
        assert!(status("").starts_with("HTTP/1.1 404 "));
    }
}
