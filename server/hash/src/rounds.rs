//! The eighty rounds of SHA-1, as text for the wide kernels.
//!
//! A kernel cannot be generic over its vector: a function that is compiled for a CPU feature must
//! name it, and intrinsics only become instructions inside such a function. So the rounds are
//! macros; each kernel supplies the functions `add`, `splat`, `xor_of_four`, `rotate_1`,
//! `rotate_5`, `rotate_30`, `choose`, `parity` and `majority` for its vectors.

/// The constants of the four groups of twenty rounds (FIPS 180-4, 4.2.1).
pub(crate) const CONSTANTS: [u32; 4] = [0x5a82_7999, 0x6ed9_eba1, 0x8f1b_bcdc, 0xca62_c1d6];

/// One round. `$w` holds the last sixteen words of the message schedule; the index of a round is a
/// literal, so that the schedule stays in registers.
macro_rules! round {
    ($w:ident, $function:ident, $constant:ident, $round:expr,
     $a:ident $b:ident $c:ident $d:ident $e:ident) => {
        if $round >= 16 {
            $w[$round % 16] = rotate_1(xor_of_four(
                $w[($round + 13) % 16],
                $w[($round + 8) % 16],
                $w[($round + 2) % 16],
                $w[$round % 16],
            ));
        }
        $e = add(
            add($e, add($w[$round % 16], $constant)),
            $function($b, $c, $d),
        );
        $e = add($e, rotate_5($a));
        $b = rotate_30($b);
    };
}

/// Five rounds, after which every variable has its old name again.
macro_rules! five_rounds {
    ($w:ident, $function:ident, $constant:ident, $round:expr,
     $a:ident $b:ident $c:ident $d:ident $e:ident) => {
        $crate::rounds::round!($w, $function, $constant, $round, $a $b $c $d $e);
        $crate::rounds::round!($w, $function, $constant, $round + 1, $e $a $b $c $d);
        $crate::rounds::round!($w, $function, $constant, $round + 2, $d $e $a $b $c);
        $crate::rounds::round!($w, $function, $constant, $round + 3, $c $d $e $a $b);
        $crate::rounds::round!($w, $function, $constant, $round + 4, $b $c $d $e $a);
    };
}

pub(crate) use {five_rounds, round};
