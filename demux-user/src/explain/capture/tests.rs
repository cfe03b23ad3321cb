//! Captures of every form, whole and damaged.

use super::*;

const FRAME: [u8; 15] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// The two byte orders of the fields of a capture.
#[derive(Clone, Copy)]
enum Order {
    Little,
    Big,
}

impl Order {
    fn u32(self, value: u32) -> [u8; 4] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }

    fn u16(self, value: u16) -> [u8; 2] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }
}

fn pcap(order: Order, magic: u32, link_type: u32, frames: &[&[u8]]) -> Vec<u8> {
    let mut file = Vec::new();
    file.extend(order.u32(magic));
    file.extend(order.u16(2));
    file.extend(order.u16(4));
    for field in [0, 0, 65_535, link_type] {
        file.extend(order.u32(field));
    }
    for frame in frames {
        for field in [1, 2, frame.len() as u32, 1500] {
            file.extend(order.u32(field));
        }
        file.extend(*frame);
    }
    file
}

fn block(order: Order, kind: u32, content: &[u8]) -> Vec<u8> {
    let mut content = content.to_vec();
    content.resize(content.len().next_multiple_of(4), 0);
    let length = order.u32(12 + content.len() as u32);
    [&order.u32(kind)[..], &length, &content, &length].concat()
}

fn pcapng(order: Order, link_type: u16, frames: &[&[u8]]) -> Vec<u8> {
    let section = [
        &order.u32(0x1a2b_3c4d)[..],
        &order.u16(1),
        &order.u16(0),
        &[0xff; 8],
    ]
    .concat();
    let interface = [&order.u16(link_type)[..], &order.u16(0), &order.u32(0)].concat();
    let mut file = block(order, 0x0a0d_0d0a, &section);
    file.extend(block(order, 1, &interface));
    for frame in frames {
        let mut packet = Vec::new();
        for field in [0, 0, 0, frame.len() as u32, 1500] {
            packet.extend(order.u32(field));
        }
        packet.extend(*frame);
        file.extend(block(order, 6, &packet));
    }
    file
}

/// Every frame of a file, and what ended it where that was not its end.
fn read_all(file: Vec<u8>) -> (Vec<Captured>, Option<String>) {
    let mut frames = Vec::new();
    let mut capture = match Capture::new(Path::new("file"), Full(std::io::Cursor::new(file))) {
        Ok(capture) => capture,
        Err(error) => return (frames, Some(error.to_string())),
    };
    loop {
        match capture.next_frame() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, None),
            Err(error) => {
                assert_eq!(error.exit_status(), 1);
                return (frames, Some(error.to_string()));
            }
        }
    }
}

fn expected() -> Vec<Captured> {
    [&FRAME[..], &FRAME[..6]]
        .map(|frame| Captured {
            frame: frame.to_vec(),
            length: 1500,
        })
        .into()
}

#[test]
fn both_byte_orders_and_precisions_are_read() {
    for order in [Order::Little, Order::Big] {
        for magic in [0xa1b2_c3d4, 0xa1b2_3c4d] {
            let file = pcap(order, magic, 1, &[&FRAME, &FRAME[..6]]);
            assert_eq!(read_all(file), (expected(), None), "{magic:#x}");
        }
        let file = pcapng(order, 1, &[&FRAME, &FRAME[..6]]);
        assert_eq!(read_all(file), (expected(), None));
    }
}

#[test]
fn more_than_the_buffer_holds_is_read() {
    let frame = [7; 9000];
    let frames = [&frame[..]; 300];
    let (read, error) = read_all(pcap(Order::Little, 0xa1b2_c3d4, 1, &frames));
    assert_eq!((read.len(), error), (300, None));
    let (read, error) = read_all(pcapng(Order::Little, 1, &frames));
    assert_eq!((read.len(), error), (300, None));
}

#[test]
fn a_file_cut_anywhere_is_an_error_or_an_end_between_packets() {
    for file in [
        pcap(Order::Little, 0xa1b2_c3d4, 1, &[&FRAME, &FRAME[..6]]),
        pcapng(Order::Big, 1, &[&FRAME, &FRAME[..6]]),
    ] {
        for length in 0..file.len() {
            let (frames, error) = read_all(file[..length].to_vec());
            assert!(frames.len() < 2, "{length}");
            assert!(expected().starts_with(&frames));
            // Nothing tells a file that ends between two packets from a whole one.
            if let Some(error) = error {
                assert!(
                    error.starts_with("cannot read the capture file: "),
                    "{error}"
                );
            }
        }
    }
    let mut file = pcap(Order::Little, 0xa1b2_c3d4, 1, &[&FRAME]);
    file.pop();
    let (_, error) = read_all(file);
    assert!(error.unwrap().ends_with("it ends within a packet"));
}

#[test]
fn lengths_that_lie_are_errors() {
    for length in [0x0010_0000_u32, 0x7fff_ffff, u32::MAX] {
        let mut file = pcap(Order::Little, 0xa1b2_c3d4, 1, &[&FRAME]);
        file[32..36].copy_from_slice(&length.to_le_bytes());
        assert!(read_all(file).1.is_some(), "{length:#x}");
        let mut file = pcapng(Order::Little, 1, &[&FRAME]);
        let packet = file.len() - 28;
        file[packet..packet + 4].copy_from_slice(&length.to_le_bytes());
        assert!(read_all(file).1.is_some(), "{length:#x}");
    }
}

#[test]
fn other_links_than_ethernet_are_refused() {
    for (file, number) in [
        (pcap(Order::Little, 0xa1b2_c3d4, 113, &[&FRAME]), 113),
        (pcapng(Order::Little, 276, &[&FRAME]), 276),
    ] {
        let (frames, error) = read_all(file);
        assert!(frames.is_empty());
        assert!(error.unwrap().contains(&format!("link type {number}")));
    }
}

#[test]
fn a_pipe_that_delivers_byte_by_byte_is_read() {
    struct Slow(std::io::Cursor<Vec<u8>>);
    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let length = buffer.len().min(1);
            self.0.read(&mut buffer[..length])
        }
    }
    let file = pcap(Order::Little, 0xa1b2_c3d4, 1, &[&FRAME]);
    let slow = Slow(std::io::Cursor::new(file));
    let mut capture = Capture::new(Path::new("pipe"), Full(slow)).unwrap();
    assert_eq!(capture.next_frame().unwrap().unwrap().frame, FRAME);
    assert_eq!(capture.next_frame().unwrap(), None);
}
