//! Packets on their way from a worker to the packet log: batches of about a mebibyte, whose memory comes back.

use std::collections::HashMap;
use std::sync::Arc;

use wiretag_capture::{Packet, PacketBuffer};

/// Bytes of packets handed on at once.
const BATCH_BYTES: usize = 1 << 20;

/// Packets on their way to the packet log.
pub(crate) struct PacketBatch {
    pub(crate) packets: PacketBuffer,
    /// Names of their interfaces as of then: an index may get another name later.
    pub(crate) names: Arc<InterfaceNames>,
}

/// The way to the packet log.
#[derive(Clone)]
pub(crate) struct PacketSender {
    pub(crate) batches: crossbeam_channel::Sender<PacketBatch>,
    /// Buffers that the packet log is done with. Their memory is used again: to ask the kernel for a megabyte each time, and
    /// to have it cleared, would cost as much as the copying.
    pub(crate) spare: crossbeam_channel::Receiver<PacketBuffer>,
}

/// Names of interfaces by index.
pub(crate) type InterfaceNames = HashMap<u32, Arc<str>>;

/// Collects packets for the packet log.
pub(crate) struct Outbox {
    queue: PacketSender,
    /// Of the interfaces that packets come from.
    pub(crate) names: Arc<InterfaceNames>,
    packets: PacketBuffer,
    /// Packets that found the queue full.
    pub(crate) dropped: u64,
}

impl Outbox {
    pub(crate) fn new(queue: PacketSender) -> Self {
        Self { queue, names: Arc::default(), packets: PacketBuffer::default(), dropped: 0 }
    }

    pub(crate) fn push(&mut self, packet: &Packet<'_>, flow_id: Option<u64>) {
        if self.packets.is_empty()
            && let Ok(spare) = self.queue.spare.try_recv()
        {
            self.packets = spare;
        }
        self.packets.push(packet, flow_id);
        if self.packets.blocks().len() >= BATCH_BYTES {
            self.send();
        }
    }

    pub(crate) fn send_if_older_than(&mut self, time: i64) {
        if self.packets.span().0 < time {
            self.send();
        }
    }

    /// Hands on what there is. What finds the queue full is lost, and its memory used again.
    pub(crate) fn send(&mut self) {
        if self.packets.is_empty() {
            return;
        }
        let batch = PacketBatch { packets: std::mem::take(&mut self.packets), names: self.names.clone() };
        if let Err(error) = self.queue.batches.try_send(batch) {
            let mut packets = error.into_inner().packets;
            self.dropped += packets.len() as u64;
            packets.clear();
            self.packets = packets;
        }
    }
}
