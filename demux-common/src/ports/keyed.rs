//! A keyed function whose outputs tell nothing about its other outputs: SipHash-2-4 (Aumasson and
//! Bernstein, 2012) over whole words.
//!
//! The hash of the connection table does not do here: whoever sees enough ports chosen for his own
//! addresses could solve for its numbers.

/// SipHash-2-4 of words, as of their bytes in little-endian order.
#[inline(always)]
#[must_use]
pub fn siphash<const N: usize>(key: [u64; 2], words: &[u64; N]) -> u64 {
    let mut state = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    let mut index = 0;
    while index < N {
        absorb(&mut state, words[index]);
        index += 1;
    }
    absorb(&mut state, (8 * N as u64) << 56);
    state[2] ^= 0xff;
    round(&mut state);
    round(&mut state);
    round(&mut state);
    round(&mut state);
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

#[inline(always)]
fn absorb(state: &mut [u64; 4], word: u64) {
    state[3] ^= word;
    round(state);
    round(state);
    state[0] ^= word;
}

#[inline(always)]
fn round(state: &mut [u64; 4]) {
    let [a, b, c, d] = *state;
    let a = a.wrapping_add(b);
    let b = b.rotate_left(13) ^ a;
    let a = a.rotate_left(32);
    let c = c.wrapping_add(d);
    let d = d.rotate_left(16) ^ c;
    let a = a.wrapping_add(d);
    let d = d.rotate_left(21) ^ a;
    let c = c.wrapping_add(b);
    let b = b.rotate_left(17) ^ c;
    let c = c.rotate_left(32);
    *state = [a, b, c, d];
}

#[cfg(test)]
mod tests {
    use super::siphash;

    /// The key and the first messages of the reference implementation's test vectors, those of whole
    /// words.
    #[test]
    fn test_vectors() {
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        assert_eq!(siphash(key, &[]), 0x726f_db47_dd0e_0e31);
        assert_eq!(
            siphash(key, &[0x0706_0504_0302_0100]),
            0x93f5_f579_9a93_2462
        );
        assert_eq!(
            siphash(key, &[0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]),
            0x3f2a_cc7f_57c2_9bdb
        );
    }
}
