//! One thread reads all that the kernel hands over, merges it by kernel time, and passes it on.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{MapData, PerfEventArray, RingBuf, perf::PerfEventArrayBuffer},
    util::online_cpus,
};
use aya_log::EbpfLogger;
use hostdns_probe_ebpf::Record;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc;

use super::{
    attach::boot_ns,
    decode,
    event::Event,
    load::{Error, take},
};

/// Events younger than this wait for older ones from another buffer or CPU.
const REORDER_NS: u64 = 1_000_000;

/// How often the buffer of foreign flows is looked at (its programs wake nobody), in milliseconds.
const LOOK_MS: u16 = 8;

/// Events that wait for a slow consumer, at most. Beyond it those of foreign flows stay in their ring: if that runs
/// full, the programs count what they could not put there, and one place has the whole loss.
const QUEUE: usize = 4096;

/// Events that wait besides, of the check's own flows and with packet bytes, if nobody takes anything any more.
const PENDING: usize = 16_384;

/// Pages per CPU for events with packet bytes: 128 KiB hold some 400.
const PERF_PAGES: usize = 32;

/// What the reader itself lost: a full queue, or bytes that do not decode.
#[derive(Debug, Default)]
pub(crate) struct ReaderCounts {
    pub(crate) own_lost: AtomicU64,
    pub(crate) other_lost: AtomicU64,
    /// Boot clock, nanoseconds: what happened up to then is in the queue.
    pub(crate) read_until: AtomicU64,
}

/// The buffers of one loaded object.
pub(crate) struct Reader {
    own: RingBuf<MapData>,
    other: RingBuf<MapData>,
    packets: Vec<PerfEventArrayBuffer<MapData>>,
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
    drop_reasons: BTreeMap<u32, String>,
    counts: Arc<ReaderCounts>,
}

impl Reader {
    /// Takes the buffers out of the object. Buffers that cannot be had cost bytes of packets, not events.
    pub(crate) fn new(ebpf: &mut Ebpf, drop_reasons: BTreeMap<u32, String>) -> Result<Self, Error> {
        let ring =
            |ebpf: &mut Ebpf, name| RingBuf::try_from(take(ebpf, name)?).map_err(|source| Error::Map { name, source });
        let mut array = PerfEventArray::try_from(take(ebpf, "PACKETS")?)
            .map_err(|source| Error::Map { name: "PACKETS", source })?;
        let mut packets = Vec::new();
        for cpu in online_cpus().unwrap_or_default() {
            match array.open(cpu, Some(PERF_PAGES)) {
                Ok(buffer) => packets.push(buffer),
                Err(error) => tracing::warn!(cpu, %error, "no perf buffer: drops on this CPU come without bytes"),
            }
        }
        let logger =
            EbpfLogger::init(ebpf).inspect_err(|error| tracing::debug!(%error, "the programs cannot log")).ok();
        Ok(Self {
            own: ring(ebpf, "OWN_EVENTS")?,
            other: ring(ebpf, "OTHER_EVENTS")?,
            packets,
            logger,
            drop_reasons,
            counts: Arc::default(),
        })
    }

    pub(crate) fn counts(&self) -> Arc<ReaderCounts> {
        Arc::clone(&self.counts)
    }

    /// Reads until the other end of `stop` is closed, or nobody receives any more.
    pub(crate) fn spawn(self, stop: OwnedFd) -> io::Result<(mpsc::Receiver<Event>, JoinHandle<()>)> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new().name("trace-read".into()).spawn(move || self.run(&stop, &sender))?;
        Ok((receiver, thread))
    }

    fn run(mut self, stop: &OwnedFd, sender: &mpsc::Sender<Event>) {
        let mut pending: Vec<(bool, Event)> = Vec::new();
        loop {
            let timeout = if pending.is_empty() { LOOK_MS } else { 1 };
            match self.wait(stop.as_fd(), timeout) {
                Ok(false) => {}
                Ok(true) => break,
                Err(error) => {
                    tracing::error!(%error, "cannot wait for events; tracing ends");
                    break;
                }
            }
            // Taken before the buffers are emptied: whatever happens meanwhile may be in one that is done already.
            let young = boot_ns().saturating_sub(REORDER_NS);
            let room = sender.capacity().saturating_sub(pending.len());
            // What is older than events still in the ring must not overtake them.
            let until = self.drain(&mut pending, room).unwrap_or(young).min(young);
            if !Self::pass_on(&mut pending, until, sender) {
                break;
            }
            // What found no room in the queue is not yet read.
            let until = pending.first().map_or(until, |(_, event)| event.time_ns.min(until));
            self.counts.read_until.store(until, Ordering::Release);
        }
        self.drain(&mut pending, QUEUE);
        Self::pass_on(&mut pending, u64::MAX, sender);
    }

    /// True: the time to stop.
    fn wait(&self, stop: BorrowedFd<'_>, timeout_ms: u16) -> io::Result<bool> {
        let mut fds = vec![PollFd::new(stop, PollFlags::POLLIN)];
        // SAFETY: the ring outlives the call.
        let own = unsafe { BorrowedFd::borrow_raw(self.own.as_raw_fd()) };
        fds.push(PollFd::new(own, PollFlags::POLLIN));
        fds.extend(self.packets.iter().map(|buffer| PollFd::new(buffer.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::from(timeout_ms)) {
            Ok(_) => Ok(fds[0].any().unwrap_or(false)),
            Err(nix::Error::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes all there is, but of foreign flows' events no more than `room`. Then, the time of the last one taken.
    fn drain(&mut self, pending: &mut Vec<(bool, Event)>, room: usize) -> Option<u64> {
        let Self { own, other, packets, logger, drop_reasons, counts } = self;
        let mut take = |bytes: &[u8]| {
            let (time_ns, own) =
                Record::split(bytes).map_or((0, false), |(record, _)| (record.time_ns, record.packet.own != 0));
            match decode::event(bytes, drop_reasons) {
                Ok(event) if pending.len() < PENDING => pending.push((own, event)),
                Ok(_) => counts.lost(own),
                Err(decode::Error::Recycled) => {}
                Err(error) => {
                    tracing::debug!(%error, "a record was not understood");
                    counts.lost(own);
                }
            }
            time_ns
        };
        while let Some(item) = own.next() {
            take(&item);
        }
        let mut last = 0;
        let taken = (0..room).map_while(|_| other.next().map(|item| last = take(&item))).count();
        let left_unread = (taken == room).then_some(last);
        let mut joined = Vec::new();
        for buffer in packets {
            buffer.for_each(|event| {
                // What did not fit was counted by the program itself: `bpf_skb_output` told it.
                let aya::maps::perf::PerfEvent::Sample { head, tail } = event else { return };
                if tail.is_empty() {
                    take(head);
                } else {
                    joined.clear();
                    joined.extend_from_slice(head);
                    joined.extend_from_slice(tail);
                    take(&joined);
                }
            });
        }
        if let Some(logger) = logger {
            logger.flush();
        }
        left_unread
    }

    /// Hands over what is older than `until`, in order, and as much as is taken. False: nobody receives.
    fn pass_on(pending: &mut Vec<(bool, Event)>, until: u64, sender: &mpsc::Sender<Event>) -> bool {
        pending.sort_by_key(|(_, event)| event.time_ns);
        let ripe = pending.partition_point(|(_, event)| event.time_ns <= until).min(sender.capacity());
        pending.drain(..ripe).all(|(_, event)| sender.try_send(event).is_ok()) && !sender.is_closed()
    }
}

impl ReaderCounts {
    fn lost(&self, own: bool) {
        let count = if own { &self.own_lost } else { &self.other_lost };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// How long after an event it is in the queue at the latest, if the machine is not starved.
pub const LATENCY: Duration = Duration::from_millis(LOOK_MS as u64 + 2);
