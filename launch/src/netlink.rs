//! The few messages of rtnetlink (rtnetlink(7), `linux/rtnetlink.h`) that a site's network needs, as bytes; and the kernel's reply.

use std::net::Ipv4Addr;

const HEADER: usize = 16;
const REQUEST_ACK: u16 = 0x1 | 0x4;
const CREATE_EXCLUSIVE: u16 = 0x400 | 0x200;
/// The type of a reply that is an error, or none.
const ERROR: u16 = 2;
const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
/// `IFF_UP`
const UP: u32 = 1;
const INET: u8 = 2;

/// A message to the kernel.
pub struct Message(Vec<u8>);

/// What the kernel says to one.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// It is done.
    Done,
    /// It is not; why, as an error number.
    Refused(i32),
}

impl Message {
    fn new(kind: u16, flags: u16) -> Message {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        Message(bytes)
    }

    /// A pair of devices: `name` here and switched on, `inner` in the namespace that `namespace` is open on. That one is
    /// switched on later: while the kernel makes it, it has nobody on the other end yet, and refuses.
    pub fn pair(name: &str, index: u32, inner: &str, inner_index: u32, namespace: i32) -> Message {
        let mut message = Message::new(NEW_LINK, REQUEST_ACK | CREATE_EXCLUSIVE);
        message.link(index, UP);
        message.text(3, name);
        message.nested(18, |info| {
            info.attribute(1, b"veth");
            info.nested(2, |data| {
                data.nested(1, |peer| {
                    peer.link(inner_index, 0);
                    peer.text(3, inner);
                    peer.attribute(28, &namespace.to_ne_bytes());
                });
            });
        });
        message.closed()
    }

    /// Switches a device on.
    pub fn up(index: u32) -> Message {
        let mut message = Message::new(NEW_LINK, REQUEST_ACK);
        message.link(index, UP);
        message.closed()
    }

    /// The device has this address, and the other end is `peer`.
    pub fn address(index: u32, own: Ipv4Addr, peer: Ipv4Addr) -> Message {
        let mut message = Message::new(NEW_ADDRESS, REQUEST_ACK | CREATE_EXCLUSIVE);
        message.0.extend([INET, 32, 0, 0]);
        message.0.extend(index.to_ne_bytes());
        message.attribute(2, &own.octets());
        message.attribute(1, &peer.octets());
        message.closed()
    }

    /// Everything that is not near goes to `gateway`.
    pub fn default_route(index: u32, gateway: Ipv4Addr) -> Message {
        let mut message = Message::new(NEW_ROUTE, REQUEST_ACK | CREATE_EXCLUSIVE);
        // The main table, set up by hand, anywhere, to one host.
        message.0.extend([INET, 0, 0, 0, 254, 3, 0, 1]);
        message.0.extend([0; 4]);
        message.attribute(5, &gateway.octets());
        message.attribute(4, &index.to_ne_bytes());
        message.closed()
    }

    /// The bytes to send.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// `struct ifinfomsg`
    fn link(&mut self, index: u32, flags: u32) {
        self.0.extend([0; 4]);
        for number in [index, flags, flags] {
            self.0.extend(number.to_ne_bytes());
        }
    }

    fn text(&mut self, kind: u16, text: &str) {
        self.attribute(kind, &[text.as_bytes(), b"\0"].concat());
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nested(kind, |inside| inside.0.extend(value));
    }

    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Message)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        fill(self);
        // No message here comes near 64 KiB.
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.put(start, &length.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn closed(mut self) -> Message {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.put(0, &length.to_ne_bytes());
        self
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        for (place, byte) in self.0.iter_mut().skip(at).zip(bytes) {
            *place = *byte;
        }
    }
}

impl Reply {
    /// Reads it; none if it is something else.
    pub fn read(bytes: &[u8]) -> Option<Reply> {
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let code = i32::from_ne_bytes(bytes.get(HEADER..HEADER + 4)?.try_into().ok()?);
        match (kind, code) {
            (ERROR, 0) => Some(Reply::Done),
            (ERROR, code) => Some(Reply::Refused(code.checked_neg()?)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_true_and_everything_is_aligned() {
        let message = Message::pair("pnx0001", 7, "eth0", 1000, 3);
        let bytes = message.bytes();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(
            bytes[..4],
            u32::try_from(bytes.len()).unwrap().to_ne_bytes()
        );
        // The name follows header and ifinfomsg; its attribute's length counts the zero but not the padding.
        assert_eq!(bytes[32..34], 12_u16.to_ne_bytes());
        assert_eq!(&bytes[36..44], b"pnx0001\0");
        let own = Message::address(7, Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(own.bytes().len(), 16 + 8 + 8 + 8);
    }

    #[test]
    fn replies_are_read_whole_or_not_at_all() {
        let reply = |kind: u16, code: i32| {
            let mut bytes = vec![0; 4];
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend(code.to_ne_bytes());
            bytes
        };
        assert_eq!(Reply::read(&reply(2, 0)), Some(Reply::Done));
        assert_eq!(Reply::read(&reply(2, -17)), Some(Reply::Refused(17)));
        assert_eq!(Reply::read(&reply(16, 0)), None);
        assert_eq!(Reply::read(&reply(2, i32::MIN)), None);
        assert_eq!(Reply::read(&[0; 18]), None);
    }
}
