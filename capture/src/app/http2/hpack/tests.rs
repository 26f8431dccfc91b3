//! Blocks of RFC 7541, appendix C, and what must hold for any.

use proptest::prelude::*;

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn fields(decoder: &mut Decoder, block: &[u8]) -> Option<Vec<(Name, String)>> {
    let mut found = Vec::new();
    decoder.decode(block, &mut |name, value| found.push((name, String::from_utf8_lossy(value).into())))?;
    Some(found)
}

#[track_caller]
fn check(decoder: &mut Decoder, hex: &str, expected: &[(Name, &str)], table: usize, entries: usize) {
    let found = fields(decoder, &bytes(hex)).unwrap();
    let expected: Vec<_> = expected.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    assert_eq!((found, decoder.size, decoder.entries.len()), (expected, table, entries));
}

const FIRST: [(Name, &str); 3] = [(Name::Method, "GET"), (Name::Path, "/"), (Name::Authority, "www.example.com")];
const THIRD: [(Name, &str); 3] =
    [(Name::Method, "GET"), (Name::Path, "/index.html"), (Name::Authority, "www.example.com")];

#[test]
fn integers_of_c_1() {
    assert_eq!(integer(&[0b0000_1010], 5), Some((10, &[][..])));
    assert_eq!(integer(&[0b0001_1111, 0b1001_1010, 0b0000_1010, 7], 5), Some((1337, &[7][..])));
    assert_eq!(integer(&[42], 8), Some((42, &[][..])));
    assert_eq!((integer(&[0xff], 5), integer(&[0xff, 0xff, 0xff, 0xff, 0xff, 1], 5)), (None, None));
}

#[test]
fn literal_fields_of_c_2() {
    check(&mut Decoder::default(), "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572", &[], 55, 1);
    let path = [(Name::Path, "/sample/path")];
    check(&mut Decoder::default(), "040c 2f73 616d 706c 652f 7061 7468", &path, 0, 0);
    check(&mut Decoder::default(), "1008 7061 7373 776f 7264 0673 6563 7265 74", &[], 0, 0);
    check(&mut Decoder::default(), "82", &[(Name::Method, "GET")], 0, 0);
}

#[test]
fn requests_of_c_3_and_c_4() {
    let mut plain = Decoder::default();
    check(&mut plain, "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", &FIRST, 57, 1);
    check(&mut plain, "8286 84be 5808 6e6f 2d63 6163 6865", &FIRST, 110, 2);
    let third = "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65";
    check(&mut plain, third, &THIRD, 164, 3);
    let mut huffman = Decoder::default();
    check(&mut huffman, "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", &FIRST, 57, 1);
    check(&mut huffman, "8286 84be 5886 a8eb 1064 9cbf", &FIRST, 110, 2);
    check(&mut huffman, "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf", &THIRD, 164, 3);
}

#[test]
fn responses_of_c_5_and_c_6_with_eviction() {
    let (found, ok) = ([(Name::Status, "302")], [(Name::Status, "200")]);
    let mut plain = Decoder { max_size: 256, ..Decoder::default() };
    let first = "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 \
                 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d";
    check(&mut plain, first, &found, 222, 4);
    check(&mut plain, "4803 3330 37c1 c0bf", &[(Name::Status, "307")], 222, 4);
    let third = "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 \
                 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 \
                 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31";
    check(&mut plain, third, &ok, 215, 3);
    let mut huffman = Decoder { max_size: 256, ..Decoder::default() };
    let first = "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad \
                 1718 63c7 8f0b 97c8 e9ae 82ae 43d3";
    check(&mut huffman, first, &found, 222, 4);
    check(&mut huffman, "4883 640e ffc1 c0bf", &[(Name::Status, "307")], 222, 4);
    let third = "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 \
                 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07";
    check(&mut huffman, third, &ok, 215, 3);
}

#[test]
fn a_decoder_that_missed_the_beginning_knows_what_was_added_since() {
    let mut decoder = Decoder::default();
    // An authority that was added before is unknown; a path that is added now is known from then on.
    check(&mut decoder, "82 be 44 02 2f61", &[(Name::Method, "GET"), (Name::Lost, ""), (Name::Path, "/a")], 39, 1);
    check(&mut decoder, "82 bf be", &[(Name::Method, "GET"), (Name::Lost, ""), (Name::Path, "/a")], 39, 1);
    decoder.forget();
    check(&mut decoder, "82 be", &[(Name::Method, "GET"), (Name::Lost, "")], 0, 0);
}

#[test]
fn sizes_are_followed_within_the_limit() {
    let mut decoder = Decoder::default();
    check(&mut decoder, "44 02 2f61 20", &[(Name::Path, "/a")], 0, 0);
    fields(&mut decoder, &[0x3f, 0xff, 0xff, 0xff, 0x0f]).unwrap();
    assert_eq!(decoder.max_size, MAX_TABLE);
}

proptest! {
    #[test]
    fn any_blocks_are_survived_within_bounds(
        blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20),
    ) {
        let mut decoder = Decoder::default();
        for block in blocks {
            let _ = fields(&mut decoder, &block);
            prop_assert!(decoder.size <= decoder.max_size && decoder.max_size <= MAX_TABLE);
            prop_assert_eq!(decoder.size, decoder.entries.iter().map(|entry| entry.size as usize).sum::<usize>());
        }
    }
}
