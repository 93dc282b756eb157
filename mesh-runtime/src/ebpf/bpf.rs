//! The few commands of bpf(2) that aya keeps to itself. linux/bpf.h holds the numbers and
//! the layouts.

use std::{
    collections::BTreeMap,
    ffi::CString,
    io, mem,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya::{
    Pod,
    maps::{MapError, MapFd, MapInfo, MapType},
    util::nr_cpus,
};

const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;

/// Elements that are read at a time.
const BATCH: usize = 512;

/// The part of `union bpf_attr` that commands on an element read.
#[repr(C)]
#[derive(Default)]
struct ElementAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    /// Where the value is, or where the next key goes.
    value: u64,
    flags: u64,
}

/// The part of `union bpf_attr` that `BPF_OBJ_PIN` and `BPF_OBJ_GET` read.
#[repr(C)]
#[derive(Default)]
struct ObjectAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Opens what is pinned at `path`.
pub(super) fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjectAttr {
        pathname: path.as_ptr() as u64,
        ..ObjectAttr::default()
    };
    // SAFETY: the attribute is whole and initialised, its size is given, and the path it
    // points to ends in a zero and outlives the call.
    let fd = unsafe { bpf(BPF_OBJ_GET, &mut attr) }?;
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made the descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Pins an object at `path`, where nothing may be.
pub(super) fn pin(object: &OwnedFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjectAttr {
        pathname: path.as_ptr() as u64,
        bpf_fd: object.as_raw_fd().unsigned_abs(),
        ..ObjectAttr::default()
    };
    // SAFETY: the attribute is whole and initialised, its size is given, and the path it
    // points to ends in a zero and outlives the call.
    unsafe { bpf(BPF_OBJ_PIN, &mut attr) }?;
    Ok(())
}

/// The part of `union bpf_attr` that `BPF_OBJ_GET_INFO_BY_FD` reads.
#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// `struct bpf_link_info` as far as tcx links fill it in. The union behind the three
/// numbers holds pointers for other links, and is aligned for them.
#[repr(C, align(8))]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    prog_id: u32,
    pad: u32,
    ifindex: u32,
    attach_type: u32,
}

/// Index of the interface that a tcx link is on; zero if it has been detached
/// (`tcx_link_fill_info`).
pub(super) fn link_interface(link: &OwnedFd) -> io::Result<u32> {
    let mut info = LinkInfo::default();
    let mut attr = InfoAttr {
        bpf_fd: link.as_raw_fd().unsigned_abs(),
        info_len: size_of::<LinkInfo>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: the attribute is whole and initialised, its size is given, and the kernel writes
    // no more than `info_len` bytes to `info`, which outlives the call.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(info.ifindex)
}

/// The part of `union bpf_attr` that commands on many elements read.
#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    /// Where the reading goes on; nothing at the beginning.
    in_batch: u64,
    /// Where the kernel writes where it will go on.
    out_batch: u64,
    keys: u64,
    values: u64,
    /// Room for so many elements; afterwards, how many there are.
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// The elements of a hash map, some hundred with each system call (Linux 5.6, commit
/// 057996380a42).
///
/// `K` and `V` must be the map's types.
pub(super) fn read_hash<K: Pod + Ord, V: Pod>(map: BorrowedFd<'_>) -> io::Result<BTreeMap<K, V>> {
    // Of a hash the place to go on is the number of a bucket.
    let (mut place, mut next): (u32, u32) = (0, 0);
    let mut elements = BTreeMap::new();
    let mut first = true;
    loop {
        let mut keys: Vec<mem::MaybeUninit<K>> = Vec::with_capacity(BATCH);
        let mut values: Vec<mem::MaybeUninit<V>> = Vec::with_capacity(BATCH);
        let mut attr = BatchAttr {
            in_batch: match first {
                true => 0,
                false => std::ptr::from_ref(&place) as u64,
            },
            out_batch: std::ptr::from_mut(&mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: BATCH as u32,
            map_fd: map.as_raw_fd().unsigned_abs(),
            ..BatchAttr::default()
        };
        // SAFETY: keys and values have room for `count` elements of the map's types, the places
        // are as long as a hash's, and all of them outlive the call.
        let at_the_end = match unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) } {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) => return Err(error),
        };
        let count = (attr.count as usize).min(BATCH);
        // SAFETY: the kernel has written that many, no more than there is room for.
        unsafe {
            keys.set_len(count);
            values.set_len(count);
        }
        for (key, value) in keys.into_iter().zip(values) {
            // SAFETY: written by the kernel, and any bytes are a value of a `Pod`.
            elements.insert(unsafe { key.assume_init() }, unsafe { value.assume_init() });
        }
        if at_the_end {
            return Ok(elements);
        }
        (place, first) = (next, false);
    }
}

/// What matters of a map's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) key_len: usize,
    pub(super) value_len: usize,
    pub(super) capacity: u32,
    /// How many values an element has: one, or one for each CPU.
    pub(super) slots: usize,
}

impl Shape {
    fn read(info: &MapInfo) -> Result<Self, MapError> {
        let per_cpu = matches!(
            info.map_type()?,
            MapType::PerCpuArray | MapType::PerCpuHash | MapType::LruPerCpuHash
        );
        let cpus = nr_cpus().map_err(|(_, error)| MapError::IoError(error))?;
        Ok(Self {
            key_len: info.key_size() as usize,
            value_len: info.value_size() as usize,
            capacity: info.max_entries(),
            slots: if per_cpu { cpus } else { 1 },
        })
    }

    /// Bytes from one value to the next: the kernel aligns those of per-CPU maps to eight.
    pub(super) fn stride(self) -> usize {
        if self.slots == 1 {
            self.value_len
        } else {
            self.value_len.next_multiple_of(8)
        }
    }

    pub(super) fn element_len(self) -> usize {
        self.stride() * self.slots
    }
}

/// A map of whatever shape, read and written as bytes.
pub(super) struct RawMap {
    map: MapFd,
    id: u32,
    shape: Shape,
}

impl RawMap {
    /// Opens the map that is pinned at `path`.
    pub(super) fn open(path: &Path) -> Result<Self, MapError> {
        let info = MapInfo::from_pin(path)?;
        Ok(Self {
            map: info.fd()?,
            id: info.id(),
            shape: Shape::read(&info)?,
        })
    }

    /// The kernel's number of the map.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// All keys, for as long as nobody removes any meanwhile.
    pub(super) fn keys(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        loop {
            let mut next = vec![0; self.shape.key_len];
            let last = keys.last().map_or(0, |key| key.as_ptr() as u64);
            let mut attr = self.attr(last, next.as_mut_ptr() as u64);
            // SAFETY: both keys have the map's key length, and outlive the call.
            match unsafe { bpf(BPF_MAP_GET_NEXT_KEY, &mut attr) } {
                Ok(_) => keys.push(next),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(keys),
                Err(error) => return Err(error),
            }
        }
    }

    /// The element at `key`.
    pub(super) fn get(&self, key: &[u8]) -> io::Result<Vec<u8>> {
        check_len(key, self.shape.key_len)?;
        let mut value = vec![0; self.shape.element_len()];
        let mut attr = self.attr(key.as_ptr() as u64, value.as_mut_ptr() as u64);
        // SAFETY: key and value have the lengths that the map exchanges, and outlive the call.
        unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) }?;
        Ok(value)
    }

    /// Sets the element at `key`.
    pub(super) fn set(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        check_len(key, self.shape.key_len)?;
        check_len(value, self.shape.element_len())?;
        let mut attr = self.attr(key.as_ptr() as u64, value.as_ptr() as u64);
        // SAFETY: key and value have the lengths that the map exchanges, and outlive the call.
        unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attr) }?;
        Ok(())
    }

    fn attr(&self, key: u64, value: u64) -> ElementAttr {
        ElementAttr {
            map_fd: self.map.as_fd().as_raw_fd().unsigned_abs(),
            key,
            value,
            ..ElementAttr::default()
        }
    }
}

fn check_len(bytes: &[u8], expected: usize) -> io::Result<()> {
    if bytes.len() == expected {
        return Ok(());
    }
    let text = format!("{} bytes where the map has {expected}", bytes.len());
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

/// Calls bpf(2).
///
/// # Safety
///
/// `attr` must be laid out as the command wants it, and what it points to must be valid for
/// as long and as much as the command reads and writes.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: as the caller promises.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
