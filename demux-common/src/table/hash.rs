//! The hash that finds a connection's home, keyed with secret multipliers.
//!
//! Sums of products of 32-bit words with random 64-bit numbers collide, for any two keys that are
//! fixed beforehand, with a probability of about 2^-32 over the choice of the numbers (Thorup, "High
//! speed hashing for integers and strings", 2015, pair-multiply-shift). An attacker who does not know
//! them cannot build keys that collide, as he can against a hash that mixes a secret into fixed
//! multipliers. The multiplication at the end breaks up the even spacing of keys that differ in their
//! ports only.

/// How many random numbers there are.
const NUMBERS: usize = 13;

/// The random numbers of an instance.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C)]
pub struct Secret {
    /// Random in every bit.
    pub numbers: [u64; NUMBERS],
    /// The key of the [allocator's](crate::ports) keyed functions, random in every bit.
    pub ports: [u64; 2],
}

impl Secret {
    /// How many random numbers there are.
    pub const NUMBERS: usize = NUMBERS;

    /// No numbers; of use only before there are real ones.
    pub const ZERO: Self = Self {
        numbers: [0; NUMBERS],
        ports: [0; 2],
    };
}

/// Where the random numbers come from.
pub trait Numbers {
    /// The number at an index below [`Secret::NUMBERS`].
    fn number(&self, index: usize) -> u64;
}

impl Numbers for Secret {
    #[inline(always)]
    fn number(&self, index: usize) -> u64 {
        self.numbers[index]
    }
}

/// 64 bits for a pair of IPv4 addresses.
#[inline(always)]
pub(super) fn v4<N: Numbers + ?Sized>(numbers: &N, pair: u64) -> u64 {
    product(numbers, 0, pair)
}

/// 64 bits for a pair of IPv6 addresses, each as two words.
#[inline(always)]
pub(super) fn v6<N: Numbers + ?Sized>(numbers: &N, local: [u64; 2], remote: [u64; 2]) -> u64 {
    product(numbers, 5, local[0])
        .wrapping_add(product(numbers, 7, local[1]))
        .wrapping_add(product(numbers, 9, remote[0]))
        .wrapping_add(product(numbers, 11, remote[1]))
}

/// The hash of a key whose addresses gave `addresses`; its high half is as good as random.
#[inline(always)]
pub(super) fn finish<N: Numbers + ?Sized>(
    numbers: &N,
    addresses: u64,
    ports: u32,
    is_udp: bool,
) -> u64 {
    let mut sum = addresses.wrapping_add(u64::from(ports).wrapping_mul(numbers.number(2)));
    if is_udp {
        sum = sum.wrapping_add(numbers.number(3));
    }
    (sum ^ sum >> 32).wrapping_mul(numbers.number(4) | 1)
}

/// Which of `homes` homes a hash belongs to.
#[inline(always)]
pub(super) const fn home(hash: u64, homes: u32) -> u32 {
    (((hash >> 32) * homes as u64) >> 32) as u32
}

#[inline(always)]
fn product<N: Numbers + ?Sized>(numbers: &N, first: usize, word: u64) -> u64 {
    let low = word & 0xffff_ffff;
    let high = word >> 32;
    numbers
        .number(first)
        .wrapping_add(low)
        .wrapping_mul(numbers.number(first + 1).wrapping_add(high))
}
