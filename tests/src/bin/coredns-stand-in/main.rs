//! Speaks to the lab as a CoreDNS does: takes `-conf COREFILE`, forwards what comes to port 53 over UDP to the first
//! nameserver of the file that the Corefile names, and prints `.:53` once it listens.
//!
//! A file beside this program makes it misbehave: `silent` never to say that it listens, `talkative` to say everything
//! else without end, `dies` to end with a message.

use std::{
    env, fs, io,
    io::Write as _,
    net::{IpAddr, SocketAddr, UdpSocket},
    process::exit,
    time::Duration,
};

fn main() -> io::Result<()> {
    let misbehaves = |how: &str| env::current_exe().is_ok_and(|path| path.with_file_name(how).exists());
    if misbehaves("dies") {
        eprintln!("plugin/forward: the Corefile is not to my taste");
        exit(3);
    }
    while misbehaves("talkative") {
        println!("[INFO] plugin/ready: still waiting");
        io::stdout().flush()?;
    }
    if misbehaves("silent") {
        loop {
            std::thread::park();
        }
    }
    let mut args = env::args().skip(1);
    let (Some("-conf"), Some(corefile)) = (args.next().as_deref(), args.next()) else {
        eprintln!("no -conf COREFILE");
        exit(2);
    };
    let upstream = SocketAddr::new(upstream(&fs::read_to_string(corefile)?)?, 53);
    let socket = UdpSocket::bind("0.0.0.0:53")?;
    println!(".:53\nCoreDNS-0.0.0");
    let mut packet = [0; 4096];
    loop {
        let (len, client) = socket.recv_from(&mut packet)?;
        let up = UdpSocket::bind("0.0.0.0:0")?;
        up.connect(upstream)?;
        up.set_read_timeout(Some(Duration::from_secs(2)))?;
        up.send(&packet[..len])?;
        if let Ok(len) = up.recv(&mut packet) {
            socket.send_to(&packet[..len], client)?;
        }
    }
}

fn upstream(corefile: &str) -> io::Result<IpAddr> {
    let none = || io::Error::other("the Corefile forwards . to no file with a nameserver");
    let path = corefile.lines().find_map(|line| line.trim().strip_prefix("forward . ")).ok_or_else(none)?;
    let file = fs::read_to_string(path.trim_end_matches(['{', ' ']))?;
    let server = file.lines().find_map(|line| line.strip_prefix("nameserver ")).ok_or_else(none)?;
    server.trim().parse().map_err(io::Error::other)
}
