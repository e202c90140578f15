//! CPython 2.7's hash, against vectors recorded from the real one.

use std::num::NonZeroU32;

use proptest::prelude::*;
use routing::python27::{floor_mod, hash32, hash64};

const RECORDED: &str = include_str!("data/python27_hash.csv");

#[test]
fn every_recorded_vector_agrees() {
    let mut lines = RECORDED.lines();
    let head = "bytes_hex,hash64,hash32,mod10_of_64,mod10_of_32,mod7_of_64,mod7_of_32,mod100_of_64,mod100_of_32";
    assert_eq!(lines.next(), Some(head));
    let mut vectors = 0;
    for line in lines {
        let (hex, numbers) = line.split_once(',').unwrap();
        let bytes: Vec<u8> = (0..hex.len() / 2)
            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
            .collect();
        let numbers: Vec<i64> = numbers
            .split(',')
            .map(|number| number.parse().unwrap())
            .collect();
        let (wide, narrow) = (hash64(&bytes), i64::from(hash32(&bytes)));
        let modulo = |hash, n| i64::from(floor_mod(hash, NonZeroU32::new(n).unwrap()));
        let ours = [
            wide,
            narrow,
            modulo(wide, 10),
            modulo(narrow, 10),
            modulo(wide, 7),
            modulo(narrow, 7),
            modulo(wide, 100),
            modulo(narrow, 100),
        ];
        assert_eq!(numbers, ours, "{hex}");
        vectors += 1;
    }
    assert_eq!(vectors, 504);
}

proptest! {
    /// The 32-bit hash is the 64-bit one's lower half, but for the value that stands for errors.
    #[test]
    fn the_widths_agree(key: Vec<u8>) {
        let (wide, narrow) = (hash64(&key), hash32(&key));
        prop_assert!(wide != -1 && narrow != -1);
        if wide != -2 && narrow != -2 {
            prop_assert_eq!(wide as i32, narrow);
        }
    }

    #[test]
    fn the_modulo_is_pythons(hash: i64, n in 1_u32..) {
        let modulo = floor_mod(hash, NonZeroU32::new(n).unwrap());
        prop_assert!(modulo < n);
        prop_assert_eq!((i128::from(hash) - i128::from(modulo)) % i128::from(n), 0);
    }
}
