//! A DNS server whose behaviour is in the name that is asked: `servfail.test` fails, `silent.test` never answers.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use hickory_proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{RData, Record, rdata},
};
use hostdns_probe::facts::Transport;

/// A query as the server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) transport: Transport,
    pub(crate) from: SocketAddr,
    pub(crate) id: u16,
    pub(crate) qname: String,
}

pub(crate) struct Server {
    arrived: Arc<Mutex<Vec<Arrived>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What the server does with a query.
enum Reaction {
    Send(Vec<u8>),
    Nothing,
    Close,
}

impl Server {
    /// Listens in the calling thread's namespace; its sockets stay there.
    pub(crate) fn start(address: SocketAddr) -> Self {
        let udp = UdpSocket::bind(address).unwrap();
        udp.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let tcp = TcpListener::bind(address).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let (arrived, stop) = (Arc::<Mutex<Vec<Arrived>>>::default(), Arc::<AtomicBool>::default());
        let threads = vec![
            std::thread::spawn({
                let (arrived, stop) = (Arc::clone(&arrived), Arc::clone(&stop));
                move || serve_udp(&udp, &arrived, &stop)
            }),
            std::thread::spawn({
                let (arrived, stop) = (Arc::clone(&arrived), Arc::clone(&stop));
                move || serve_tcp(&tcp, &arrived, &stop)
            }),
        ];
        Self { arrived, stop, threads }
    }

    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve_udp(socket: &UdpSocket, arrived: &Mutex<Vec<Arrived>>, stop: &AtomicBool) {
    let mut buffer = [0; 1500];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        if let Reaction::Send(bytes) = react(&buffer[..length], Transport::Udp, from, arrived) {
            socket.send_to(&bytes, from).unwrap();
        }
    }
}

fn serve_tcp(listener: &TcpListener, arrived: &Mutex<Vec<Arrived>>, stop: &AtomicBool) {
    let mut open = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let Ok((mut stream, from)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        let Some(query) = read_message(&mut stream) else { continue };
        match react(&query, Transport::Tcp, from, arrived) {
            Reaction::Send(bytes) => {
                let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
                stream.write_all(&[&length[..], &bytes].concat()).unwrap();
                open.push(stream);
            }
            Reaction::Nothing => open.push(stream),
            Reaction::Close => drop(stream),
        }
    }
}

/// One read: the length and the whole query are expected in the first segment.
fn read_message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut buffer = [0; 1500];
    let read = stream.read(&mut buffer).ok().filter(|&read| read > 2)?;
    let length = usize::from(u16::from_be_bytes([buffer[0], buffer[1]]));
    assert_eq!(read, 2 + length, "the query came in pieces");
    Some(buffer[2..read].to_vec())
}

fn react(bytes: &[u8], transport: Transport, from: SocketAddr, arrived: &Mutex<Vec<Arrived>>) -> Reaction {
    let query = Message::from_vec(bytes).unwrap();
    let question = query.queries[0].clone();
    let qname = question.name.to_string();
    let nth = {
        let mut arrived = arrived.lock().unwrap();
        arrived.push(Arrived { transport, from, id: query.metadata.id, qname: qname.clone() });
        arrived.iter().filter(|query| query.qname == qname).count()
    };
    let mut response = Message::response(query.metadata.id, OpCode::Query);
    response.add_query(question.clone());
    let answer = Record::from_rdata(question.name, 1, RData::A(rdata::A::new(192, 0, 2, 7)));
    match (qname.as_str(), nth) {
        ("silent.test.", _) | ("second.test.", 1) => return Reaction::Nothing,
        ("close.test.", _) => return Reaction::Close,
        ("garbage.test.", _) => return Reaction::Send(b"this is not DNS".to_vec()),
        ("servfail.test.", _) => response.metadata.response_code = ResponseCode::ServFail,
        ("nxdomain.test.", _) => response.metadata.response_code = ResponseCode::NXDomain,
        // As some servers do: without the question.
        ("refused.test.", _) => {
            response = Message::error_msg(query.metadata.id, OpCode::Query, ResponseCode::Refused);
        }
        ("truncated.test.", _) => response.metadata.truncation = true,
        _ => {
            response.add_answer(answer);
        }
    }
    Reaction::Send(response.to_vec().unwrap())
}
