//! Stories of flows, told in decoded packets.

mod dns;
mod properties;
mod story;
mod table;
mod tcp;
