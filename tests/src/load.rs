//! The load and its fixed responder: plain UDP sockets, bounded in rate and time, inside the lab's namespaces only.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hostdns_probe::netns::Netns;
use serde::Serialize;

use crate::names;

/// Answers every packet with itself, marked as an answer: as fast as anything can.
pub struct Responder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    pub fn start(netns: &Netns, address: SocketAddr) -> anyhow::Result<Self> {
        let socket = netns.run(|| UdpSocket::bind(address))?.with_context(|| format!("cannot listen at {address}"))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
                if let Some(flags) = buffer.get_mut(2) {
                    *flags |= 0x80; // QR
                }
                let _ = socket.send_to(&buffer[..len], from);
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What was sent, and what came back.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sent {
    pub first: u32,
    pub sent: u32,
    pub answered: u32,
    /// Queries a second.
    pub rate: f64,
}

/// Where queries come from.
pub struct Client {
    socket: UdpSocket,
}

impl Client {
    /// A socket in the pod, connected to the responder.
    pub fn new(netns: &Netns, server: SocketAddr) -> anyhow::Result<Self> {
        let socket = netns.run(|| -> io::Result<UdpSocket> {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect(server)?;
            Ok(socket)
        })??;
        Ok(Self { socket })
    }

    /// Round trips of single queries, one after the other, in microseconds. One that takes a second is left out: it
    /// was lost.
    pub fn round_trips(&self, count: u32) -> anyhow::Result<Vec<f64>> {
        self.drain()?;
        self.socket.set_nonblocking(false)?;
        self.socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        let (mut times, mut buffer) = (Vec::new(), [0; 512]);
        for number in 0..count {
            let query = names::query(number);
            let began = Instant::now();
            self.socket.send(&query)?;
            while let Ok(len) = self.socket.recv(&mut buffer) {
                if names::number(&buffer[..len]) == Some(number) {
                    times.push(began.elapsed().as_secs_f64() * 1e6);
                    break;
                }
            }
        }
        Ok(times)
    }

    /// Sends at `rate` a second, none: as fast as it goes, for `time`.
    pub fn load(&self, rate: Option<u32>, time: Duration, first: u32) -> anyhow::Result<Sent> {
        self.drain()?;
        let (mut sent, mut answered, mut buffer) = (0_u32, 0_u32, [0; 512]);
        let began = Instant::now();
        while began.elapsed() < time {
            let due = rate.map_or(u32::MAX, |rate| (began.elapsed().as_secs_f64() * f64::from(rate)) as u32);
            // In small lots: what comes back must be read before its buffer is full.
            let lot = due.saturating_sub(sent).min(32);
            for _ in 0..lot {
                match self.socket.send(&names::query(first + sent)) {
                    Ok(_) => sent += 1,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error).context("cannot send"),
                }
            }
            while self.socket.recv(&mut buffer).is_ok() {
                answered += 1;
            }
            if lot == 0 {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        let rate = f64::from(sent) / began.elapsed().as_secs_f64();
        let last = Instant::now() + Duration::from_millis(100);
        while Instant::now() < last {
            while self.socket.recv(&mut buffer).is_ok() {
                answered += 1;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(Sent { first, sent, answered, rate })
    }

    fn drain(&self) -> io::Result<()> {
        self.socket.set_nonblocking(true)?;
        let mut buffer = [0; 512];
        while self.socket.recv(&mut buffer).is_ok() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On loopback, without root: no namespace is entered.
    #[test]
    fn what_is_sent_is_answered_and_counted() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        server.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let echo = std::thread::spawn(move || {
            let (mut buffer, mut numbers) = ([0; 512], names::Seen::default());
            while let Ok((len, from)) = server.recv_from(&mut buffer) {
                numbers.insert(names::number(&buffer[..len]).unwrap());
                server.send_to(&buffer[..len], from).unwrap();
            }
            numbers
        });
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(address).unwrap();
        let sent = Client { socket }.load(Some(500), Duration::from_millis(100), 1000).unwrap();
        let numbers = echo.join().unwrap();
        assert!(sent.sent > 0 && sent.sent <= 50, "{sent:?}");
        assert_eq!(numbers.count(1000..1000 + sent.sent), sent.sent);
        assert_eq!(sent.answered, sent.sent);
    }
}
