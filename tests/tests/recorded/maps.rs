//! Maps of the kernel's, filled with recorded bytes and pinned where Cilium pins its own.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use serde::Deserialize;

/// Commands of bpf(2).
const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const OBJ_PIN: libc::c_long = 6;

/// As `bpftool map show --json` writes it.
#[derive(Debug, Deserialize)]
pub(crate) struct Info {
    r#type: String,
    flags: u32,
    pub(crate) bytes_key: u32,
    pub(crate) bytes_value: u32,
    max_entries: u32,
}

/// As `bpftool map dump --json` writes it.
#[derive(Debug, Deserialize)]
struct Entry {
    key: Vec<String>,
    #[serde(default)]
    value: Vec<String>,
    #[serde(default)]
    values: Vec<Cpu>,
}

#[derive(Debug, Deserialize)]
struct Cpu {
    value: Vec<String>,
}

/// Makes the map of a recording and pins it at `pin`. `info` may be changed on the way.
pub(crate) fn pin(recording: &Path, name: &str, pin: &Path, change: impl FnOnce(&mut Info)) {
    let read = |kind: &str| std::fs::read_to_string(recording.join(format!("maps/{name}.{kind}.json"))).unwrap();
    let mut info: Info = serde_json::from_str(&read("info")).unwrap();
    let recorded = (info.bytes_key, info.bytes_value);
    change(&mut info);
    let map = create(&info).unwrap_or_else(|error| panic!("{name}: {error}"));
    if (info.bytes_key, info.bytes_value) == recorded {
        let entries: Vec<Entry> = serde_json::from_str(&read("dump")).unwrap();
        for entry in &entries {
            let value = match entry.values.as_slice() {
                [] => bytes(&entry.value),
                cpus => of_every_cpu(cpus),
            };
            update(&map, &bytes(&entry.key), &value).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
    pin_to(&map, pin).unwrap_or_else(|error| panic!("{}: {error}", pin.display()));
}

/// The same map with nothing in it.
pub(crate) fn pin_empty(recording: &Path, name: &str, pin: &Path) {
    let info = std::fs::read_to_string(recording.join(format!("maps/{name}.info.json"))).unwrap();
    let map = create(&serde_json::from_str(&info).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"));
    pin_to(&map, pin).unwrap_or_else(|error| panic!("{}: {error}", pin.display()));
}

fn bytes(text: &[String]) -> Vec<u8> {
    text.iter().map(|byte| u8::from_str_radix(byte.trim_start_matches("0x"), 16).unwrap()).collect()
}

/// The kernel wants a value for every CPU that may ever be there.
fn of_every_cpu(cpus: &[Cpu]) -> Vec<u8> {
    let possible = aya::util::nr_cpus().unwrap();
    assert!(cpus.len() <= possible, "recorded on {} CPUs, and there are {possible} here", cpus.len());
    let mut whole: Vec<u8> = cpus.iter().flat_map(|cpu| bytes(&cpu.value)).collect();
    whole.resize(possible * cpus[0].value.len(), 0);
    whole
}

fn create(info: &Info) -> io::Result<OwnedFd> {
    // enum bpf_map_type (include/uapi/linux/bpf.h).
    let kind = match info.r#type.as_str() {
        "hash" => 1_u32,
        "percpu_hash" => 5,
        "lru_hash" => 9,
        "lpm_trie" => 11,
        other => panic!("a map of type {other}"),
    };
    let attributes = [kind, info.bytes_key, info.bytes_value, info.max_entries, info.flags];
    let mut buffer: Vec<u8> = attributes.iter().flat_map(|number| number.to_ne_bytes()).collect();
    let fd = bpf(MAP_CREATE, &mut buffer)?;
    // SAFETY: the kernel has just given it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// map_fd 0:4, key 8:8, value 16:8, flags 24:8.
fn update(map: &OwnedFd, key: &[u8], value: &[u8]) -> io::Result<()> {
    let mut buffer = u64::from(map.as_raw_fd().cast_unsigned()).to_ne_bytes().to_vec();
    buffer.extend((key.as_ptr() as u64).to_ne_bytes());
    buffer.extend((value.as_ptr() as u64).to_ne_bytes());
    buffer.extend(0_u64.to_ne_bytes());
    bpf(MAP_UPDATE_ELEM, &mut buffer).map(drop)
}

/// pathname 0:8, bpf_fd 8:4.
fn pin_to(map: &OwnedFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let mut buffer = (path.as_ptr() as u64).to_ne_bytes().to_vec();
    buffer.extend(map.as_raw_fd().to_ne_bytes());
    buffer.extend([0; 4]);
    bpf(OBJ_PIN, &mut buffer).map(drop)
}

fn bpf(command: libc::c_long, attributes: &mut [u8]) -> io::Result<RawFd> {
    // SAFETY: the kernel reads so many bytes of the attributes; what they point to outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), attributes.len()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(RawFd::try_from(result).unwrap()) }
}
