//! Live capture: TPACKET_V3 rings and the interfaces they read.
