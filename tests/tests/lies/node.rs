//! Files of a lab's node or pod, and its pinned maps, reached through the root directory of one of its processes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use end_to_end::lab::Lab;

use crate::{maps, recording};

/// The root directory of a node or a pod.
pub(crate) struct Inside(PathBuf);

impl Inside {
    /// Of the node; with a name: of that pod.
    pub(crate) fn of(lab: &Lab, pod: Option<&str>) -> Self {
        let inode = lab.netns(pod).id().unwrap().inode;
        let wanted = format!("net:[{inode}]");
        let mut processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let found = processes.find(|process| {
            fs::read_link(process.join("ns/net")).is_ok_and(|link| link.as_os_str() == wanted.as_str())
        });
        Self(found.unwrap_or_else(|| panic!("no process in {wanted}")).join("root"))
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    fn pin_of(&self, name: &str) -> PathBuf {
        let pin = self.path("/sys/fs/bpf/tc/globals").join(name);
        assert!(pin.exists(), "{} is not there", pin.display());
        pin
    }

    /// Another map under the name of Cilium's: the recorded one, changed. The datapath keeps its own.
    pub(crate) fn repin(&self, name: &str, change: impl FnOnce(&mut maps::Info)) {
        put(name, &self.pin_of(name), change);
    }

    /// The same, with the layout as it is and nothing in it.
    pub(crate) fn repin_empty(&self, name: &str) {
        let pin = self.pin_of(name);
        fs::remove_file(&pin).unwrap();
        maps::pin_empty(&recording(), name, &pin);
    }
}

fn put(name: &str, pin: &Path, change: impl FnOnce(&mut maps::Info)) {
    fs::remove_file(pin).unwrap();
    maps::pin(&recording(), name, pin, change);
}
