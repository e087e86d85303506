//! TUN devices: an external device without an Ethernet header, and a device that only holds an address.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::fd::AsRawFd as _,
};

use super::Error;

/// Makes a TUN device in the calling thread's network namespace. It lives as long as the file is open.
///
/// # Errors
/// The kernel has no TUN, or refuses.
pub fn create(name: &str) -> Result<File, Error> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map_err(Error::io("cannot open /dev/net/tun; is the tun module there?"))?;
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = libc::c_char::try_from(from).unwrap_or(b'_' as libc::c_char);
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_TUN | libc::IFF_NO_PI).unwrap_or_default();
    // SAFETY: TUNSETIFF reads and writes the ifreq, which outlives the call.
    let status = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if status != 0 {
        let source = std::io::Error::last_os_error();
        return Err(Error::Io { what: format!("cannot make the TUN device {name}"), source });
    }
    Ok(file)
}

/// Carries packets from one TUN device to another and back, on two threads, until one of them is gone.
///
/// # Errors
/// A file cannot be shared, or a thread not started.
pub fn connect(one: &File, other: &File) -> Result<(), Error> {
    for (from, to) in [(one, other), (other, one)] {
        let mut from = from.try_clone().map_err(Error::io("cannot share a TUN device"))?;
        let mut to = to.try_clone().map_err(Error::io("cannot share a TUN device"))?;
        std::thread::Builder::new()
            .name("tun".into())
            .spawn(move || {
                let mut packet = vec![0; 65536];
                // A packet that the other side does not take (it is down) is lost, as on a wire.
                while let Ok(len) = from.read(&mut packet) {
                    let _ = packet.get(..len).map(|bytes| to.write(bytes));
                }
            })
            .map_err(Error::io("cannot start a thread"))?;
    }
    Ok(())
}
