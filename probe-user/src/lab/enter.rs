//! Running commands inside a lab.

use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    io,
    os::{
        fd::AsFd as _,
        unix::{ffi::OsStrExt as _, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command},
};

use nix::sched::{CloneFlags, setns, unshare};

use super::{Error, cgroup, mounts, standing::Standing};

/// Starts a command in the node's namespaces, or in those of one of its pods. Its stdin, stdout, stderr and environment
/// are as set on `command`.
///
/// # Errors
/// The lab is gone, there is no such pod, or the program cannot be started.
pub fn spawn(lab: &Standing, pod: Option<&str>, mut command: Command) -> Result<Child, Error> {
    let gone = || Error::NoSuchLab(lab.name.clone());
    let node = lab.node.filter(|node| node.is_alive()).ok_or_else(gone)?;
    let node_proc = PathBuf::from(format!("/proc/{}", node.pid));
    let place = pod.map(|name| lab.pod(name)).transpose()?;
    let target = match place {
        Some(place) => node_proc.join("root/proc").join(place.pid.to_string()),
        None => node_proc.clone(),
    };
    let open = |of: &Path, kind: &str| {
        let path = of.join("ns").join(kind);
        File::open(&path).map_err(Error::io(format!("cannot open {}", path.display())))
    };
    let pids = open(&node_proc, "pid")?;
    // A lab is in no cluster, whatever its caller is in.
    for variable in ["KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"] {
        if command.get_envs().all(|(name, _)| name != variable) {
            command.env_remove(variable);
        }
    }
    // The mount namespace last: it takes the paths away.
    let mut namespaces = Vec::new();
    for (kind, flag) in [
        ("net", CloneFlags::CLONE_NEWNET),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("ipc", CloneFlags::CLONE_NEWIPC),
        ("mnt", CloneFlags::CLONE_NEWNS),
    ] {
        namespaces.push((open(&target, kind)?, flag));
    }
    let below_root = match place {
        Some(place) => place.cgroup.strip_prefix(mounts::CGROUP).unwrap_or(&place.cgroup).to_path_buf(),
        None if lab.private_cgroup_namespace => {
            cgroup::of_lab(&lab.name).join(cgroup::of_pod("5f0c1d2e-7a4b-4c3d-9e8f-0000000000ff", &"ff".repeat(32)))
        }
        None => cgroup::of_lab(&lab.name).join("system"),
    };
    let cgroup = cgroup::root()?.join(below_root);
    std::fs::create_dir_all(&cgroup).map_err(Error::io(format!("cannot make the cgroup {}", cgroup.display())))?;
    let members = OpenOptions::new()
        .write(true)
        .open(cgroup.join("cgroup.procs"))
        .map_err(Error::io(format!("cannot open the cgroup {}", cgroup.display())))?;
    let private_cgroups = lab.private_cgroup_namespace && place.is_none();
    let here = std::env::current_dir().ok().and_then(|path| CString::new(path.as_os_str().as_bytes()).ok());

    let enter = move || {
        nix::unistd::write(members.as_fd(), b"0")?;
        if private_cgroups {
            unshare(CloneFlags::CLONE_NEWCGROUP)?;
        }
        for (namespace, flag) in &namespaces {
            setns(namespace.as_fd(), *flag)?;
        }
        if private_cgroups {
            own_cgroup_mount()?;
        }
        // Where the caller stood, if that exists inside.
        if let Some(here) = &here {
            let _ = nix::unistd::chdir(here.as_c_str());
        }
        Ok(())
    };
    // SAFETY: only system calls are made between fork and exec, on files that were opened before.
    unsafe {
        command.pre_exec(enter);
    }
    let program = command.get_program().to_string_lossy().into_owned();
    // A thread of its own: only the children of this thread go to the lab's PID namespace.
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                setns(pids.as_fd(), CloneFlags::CLONE_NEWPID).map_err(Error::sys("cannot enter the lab"))?;
                command.spawn().map_err(Error::io(format!("cannot run {program} inside lab {}", lab.name)))
            })
            .join()
            .unwrap_or_else(|_panic| Err(gone()))
    })
}

/// As a container runtime does for a container with a cgroup namespace of its own: /sys/fs/cgroup shows its subtree only.
fn own_cgroup_mount() -> io::Result<()> {
    let call = |result: libc::c_int| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    unshare(CloneFlags::CLONE_NEWNS)?;
    // SAFETY: the strings are static and NUL-terminated.
    unsafe {
        call(libc::mount(
            c"none".as_ptr(),
            c"/".as_ptr(),
            std::ptr::null(),
            libc::MS_REC | libc::MS_PRIVATE,
            std::ptr::null(),
        ))?;
        // A file system is not mounted on top of itself.
        call(libc::umount2(c"/sys/fs/cgroup".as_ptr(), libc::MNT_DETACH))?;
        call(libc::mount(c"cgroup2".as_ptr(), c"/sys/fs/cgroup".as_ptr(), c"cgroup2".as_ptr(), 0, std::ptr::null()))
    }
}

/// This very program, for a command inside: by its file, which need not have a path there.
#[must_use]
pub fn this_program() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("hostdns-probe");
    command
}
