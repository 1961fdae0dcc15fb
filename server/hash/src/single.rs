//! One stream at a time, by the fastest library that the CPU has use for.
//!
//! AWS-LC has code for every x86-64 level from SSSE3 on (SSSE3, AVX, AVX2, SHA-NI) and for other
//! architectures, chooses among them itself, and is the fastest on each. An x86-64 CPU without
//! SSSE3, as the default CPU model of QEMU is, would get its C code: there the assembly of
//! `sha1-asm` does as well in long runs and better in short ones. Figures are in
//! docs/adr/0007-sha1-kernels.md.
//!
//! Does not: know streams, lengths or padding.

use crate::kernel::Block;
use std::sync::Once;

/// A library for single streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Single {
    /// AWS-LC, which rustls brings in anyway.
    AwsLc,
    /// The assembly of RustCrypto, which needs nothing beyond the first x86-64.
    #[cfg(target_arch = "x86_64")]
    Sha1Asm,
}

impl Single {
    /// Those that run on this CPU, the fastest first.
    pub(crate) fn available() -> &'static [Single] {
        #[cfg(target_arch = "x86_64")]
        let best_first: &[Single] = if is_x86_feature_detected!("ssse3") {
            &[Single::AwsLc, Single::Sha1Asm]
        } else {
            &[Single::Sha1Asm, Single::AwsLc]
        };
        #[cfg(not(target_arch = "x86_64"))]
        let best_first = &[Single::AwsLc];
        best_first
    }

    /// Feeds `blocks` to `state`.
    pub(crate) fn compress(self, state: &mut [u32; 5], blocks: &[Block]) {
        match self {
            Single::AwsLc => compress_by_aws_lc(state, blocks),
            #[cfg(target_arch = "x86_64")]
            Single::Sha1Asm => sha1_asm::compress(state, blocks),
        }
    }
}

/// Feeds `blocks` to `state`: AWS-LC's stream is given our state and only whole blocks, so that it
/// never keeps a byte, and its state is taken back.
fn compress_by_aws_lc(state: &mut [u32; 5], blocks: &[Block]) {
    static READY: Once = Once::new();
    // SAFETY: it takes nothing, may be called from any thread, and looks at the CPU once.
    READY.call_once(|| unsafe { aws_lc_sys::CRYPTO_library_init() });
    let mut context = aws_lc_sys::SHA_CTX {
        h: *state,
        Nl: 0,
        Nh: 0,
        data: [0; 64],
        num: 0,
    };
    let bytes = blocks.as_flattened();
    // SAFETY: `context` is a whole SHA_CTX of ours, with no byte waiting in it (`num` is 0), and
    // `bytes` are readable for their length; both outlive the call.
    unsafe { aws_lc_sys::SHA1_Update(&raw mut context, bytes.as_ptr().cast(), bytes.len()) };
    *state = context.h;
}
