//! Which instructions this processor has, asked once.
//!
//! `FUSED_KERNELS_MAX_ISA` (one of [`Isa::NAMES`]) hides what is above it, so that a test or a benchmark on a new processor
//! also runs what older ones do.

use std::sync::OnceLock;

/// Instruction sets that kernels are written for. Each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// What every processor has.
    Portable,
    /// 256-bit registers and fused multiply-adds.
    Avx2,
    /// 8-bit dot products on 256-bit registers.
    AvxVnni,
    /// 512-bit registers, with 8-bit dot products (VNNI) where they exist.
    Avx512,
    /// Dot products of bfloat16 pairs on 512-bit registers.
    Avx512Bf16,
    /// Tile registers for bfloat16.
    Amx,
}

impl Isa {
    /// The names that `FUSED_KERNELS_MAX_ISA` knows, in order.
    pub const NAMES: [&str; 6] = ["portable", "avx2", "avx_vnni", "avx512", "avx512_bf16", "amx"];
    const ALL: [Self; 6] =
        [Self::Portable, Self::Avx2, Self::AvxVnni, Self::Avx512, Self::Avx512Bf16, Self::Amx];

    /// The highest that may be used.
    fn max() -> Self {
        static MAX: OnceLock<Isa> = OnceLock::new();
        *MAX.get_or_init(|| {
            let Ok(name) = std::env::var("FUSED_KERNELS_MAX_ISA") else { return Self::Amx };
            let index = Self::NAMES.iter().position(|it| *it == name);
            let names = Self::NAMES.join(", ");
            index.map_or_else(
                || panic!("FUSED_KERNELS_MAX_ISA is {name:?}; expected one of {names}"),
                |i| Self::ALL[i],
            )
        })
    }
}

macro_rules! detected {
    ($($feature:tt),+) => {{
        #[cfg(target_arch = "x86_64")]
        {
            $(std::arch::is_x86_feature_detected!($feature))&&+
        }
        #[cfg(not(target_arch = "x86_64"))]
        false
    }};
}

/// AVX2 with FMA.
pub fn has_avx2() -> bool {
    Isa::max() >= Isa::Avx2 && detected!("avx2", "fma")
}

/// `vpdpbusd` on 256-bit registers without AVX-512.
pub fn has_avx_vnni() -> bool {
    Isa::max() >= Isa::AvxVnni && has_avx2() && detected!("avxvnni")
}

/// `vpdpbusd` on 512-bit registers.
pub fn has_avx512_vnni() -> bool {
    Isa::max() >= Isa::Avx512 && detected!("avx512f", "avx512vnni")
}

/// `vdpbf16ps` on 512-bit registers.
pub fn has_avx512_bf16() -> bool {
    Isa::max() >= Isa::Avx512Bf16 && detected!("avx512f", "avx512bf16")
}

/// AMX for bfloat16, where the system lets this process use it.
pub fn has_amx_bf16() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        Isa::max() >= Isa::Amx && has_avx512_bf16() && amx::is_detected() && amx::is_permitted()
    })
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx {
    /// `is_x86_feature_detected!` does not know AMX in stable Rust. Leaf 7 exists on every processor with AVX-512.
    pub(super) fn is_detected() -> bool {
        const BF16_AND_TILE: u32 = 1 << 22 | 1 << 24;
        #[allow(unused_unsafe, unsafe_code, reason = "safe in newer versions of Rust only")]
        // SAFETY: every 64-bit processor has the instruction.
        let leaf = unsafe { std::arch::x86_64::__cpuid_count(7, 0) };
        leaf.edx & BF16_AND_TILE == BF16_AND_TILE
    }

    /// Linux gives a process the registers when it asks for them (arch_prctl(2), Documentation/arch/x86/xstate.rst).
    #[expect(unsafe_code, reason = "a system call that no library wraps")]
    pub(super) fn is_permitted() -> bool {
        const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
        const XFEATURE_XTILEDATA: libc::c_ulong = 18;
        // SAFETY: the call takes numbers and touches no memory of this process.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod amx {
    pub(super) fn is_detected() -> bool {
        false
    }

    pub(super) fn is_permitted() -> bool {
        false
    }
}

/// The widest vectors for f32.
#[inline]
pub fn arch() -> pulp::Arch {
    static ARCH: OnceLock<pulp::Arch> = OnceLock::new();
    *ARCH.get_or_init(|| match Isa::max() {
        Isa::Portable => pulp::Arch::Scalar,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::AvxVnni => pulp::x86::V3::try_new().map_or(pulp::Arch::Scalar, pulp::Arch::V3),
        _ => pulp::Arch::new(),
    })
}
