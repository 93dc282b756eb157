//! The processor whose kernel will run the object.

/// Which of the two BPF targets a processor's kernel takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// `bpfel-unknown-none`
    Little,
    /// `bpfeb-unknown-none`
    Big,
}

/// Processor of the machine that loads the object. BPF bytecode is portable, but the layout of the
/// registers a kernel hands to tracing programs is not: aya-ebpf selects it with `cfg(bpf_target_arch)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Architecture {
    /// Name as in `cfg(target_arch)`, for example `x86_64`.
    pub name: String,
    /// Byte order of its kernel.
    pub byte_order: ByteOrder,
}

impl Architecture {
    /// The machine this code was compiled for.
    #[must_use]
    pub fn host() -> Self {
        Self {
            name: std::env::consts::ARCH.to_owned(),
            byte_order: if cfg!(target_endian = "big") {
                ByteOrder::Big
            } else {
                ByteOrder::Little
            },
        }
    }

    /// The machine for which cargo runs this build script, which differs from [`Self::host`] when
    /// cross-compiling; the host outside build scripts.
    #[must_use]
    pub fn of_build_script() -> Self {
        let host = Self::host();
        let Ok(name) = std::env::var("CARGO_CFG_TARGET_ARCH") else {
            return host;
        };
        let byte_order = match std::env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() {
            Ok("big") => ByteOrder::Big,
            Ok("little") => ByteOrder::Little,
            _ => host.byte_order,
        };
        Self { name, byte_order }
    }

    /// Target triple of the eBPF object.
    #[must_use]
    pub fn bpf_target(&self) -> &'static str {
        match self.byte_order {
            ByteOrder::Little => "bpfel-unknown-none",
            ByteOrder::Big => "bpfeb-unknown-none",
        }
    }
}
