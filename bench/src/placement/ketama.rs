//! A ring with 160 points for each unit of weight, as nginx's `hash ... consistent` makes it: CRC32 of the host, a zero, the port and
//! the point before (`ngx_http_upstream_init_chash`).

use super::Backend;

/// Points in their order, each with its backend.
pub struct Ring(Vec<(u32, usize)>);

const POINTS: u32 = 160;

impl Ring {
    pub fn new(backends: &[Backend]) -> Ring {
        let mut points = Vec::new();
        for (number, backend) in backends.iter().enumerate() {
            let (host, port) = backend
                .address
                .split_once(':')
                .unwrap_or((&backend.address, ""));
            let base = [host.as_bytes(), b"\0", port.as_bytes()].concat();
            let mut point = 0_u32;
            for _ in 0..POINTS * backend.weight {
                let bytes = base.iter().copied().chain(point.to_le_bytes());
                point = crc32(bytes);
                points.push((point, number));
            }
        }
        points.sort_by_key(|(point, _)| *point);
        points.dedup_by_key(|(point, _)| *point);
        Ring(points)
    }

    pub fn find(&self, site: &[u8]) -> usize {
        let hash = crc32(site.iter().copied());
        let at = self.0.partition_point(|(point, _)| *point < hash);
        self.0[at % self.0.len()].1
    }
}

/// The usual one, of the polynomial 0xEDB88320.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut rest = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            rest = (rest >> 1) ^ if rest & 1 == 1 { 0xEDB8_8320 } else { 0 };
            bit += 1;
        }
        table[byte] = rest;
        byte += 1;
    }
    table
};

fn crc32(bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(u32::MAX, |crc, byte| {
        (crc >> 8) ^ TABLE[usize::from(crc as u8 ^ byte)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_crc_of_everybody() {
        assert_eq!(crc32(b"123456789".iter().copied()), 0xCBF4_3926);
    }
}
