//! What the process asks of the operating system: descriptor limits, pinning, priority, random
//! bytes, addresses, the time of the day.

use std::ffi::{CStr, CString};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Raises the soft limit on open descriptors to the hard one and returns it.
///
/// # Errors
///
/// What the kernel said; the limits are then as they were.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is ours to write for the length of the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is a valid rlimit.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

/// The day of the week, from 0 for Monday, and the minute of the day, in the time zone of this
/// machine, which is read once. `None` where its clock says nothing of use.
pub fn local_time() -> Option<(u8, u16)> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seconds = libc::time_t::try_from(since.ok()?.as_secs()).ok()?;
    let mut broken = std::mem::MaybeUninit::<libc::tm>::uninit();
    // SAFETY: both live as long as the call, which writes one `tm`; nothing in this process changes
    // the environment, which the library may read the time zone of.
    let local = unsafe { libc::localtime_r(&raw const seconds, broken.as_mut_ptr()) };
    if local.is_null() {
        return None;
    }
    // SAFETY: the call has written it.
    let local = unsafe { broken.assume_init() };
    let day = u8::try_from((local.tm_wday + 6) % 7).ok()?;
    Some((day, u16::try_from(local.tm_hour * 60 + local.tm_min).ok()?))
}

/// How wide the terminal behind stderr is, in columns; `None` if there is none, or it does not say.
pub fn terminal_columns() -> Option<usize> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the kernel writes one `winsize` to `size`, which is ours for the length of the call.
    let answer = unsafe { libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (answer == 0 && size.ws_col > 0).then(|| usize::from(size.ws_col))
}

/// The kernel's number of a network interface, if there is one of that name: another one whenever
/// it is made anew.
pub fn interface_index(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: the name ends with a zero and lives as long as the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

/// The addresses of a network interface; none where there is no such interface.
///
/// # Errors
///
/// What the kernel said.
pub fn interface_addresses(name: &str) -> io::Result<Vec<IpAddr>> {
    addresses(|found, _| found == name.as_bytes())
}

/// The addresses of all interfaces that are up and have a carrier, in the system's order.
///
/// # Errors
///
/// What the kernel said.
pub fn own_addresses() -> io::Result<Vec<IpAddr>> {
    const UP: libc::c_int = libc::IFF_UP | libc::IFF_RUNNING;
    addresses(|_, flags| flags & UP.cast_unsigned() == UP.cast_unsigned())
}

/// The addresses of interfaces that `is_meant` by their name and flags.
fn addresses(is_meant: impl Fn(&[u8], libc::c_uint) -> bool) -> io::Result<Vec<IpAddr>> {
    let mut list = std::ptr::null_mut();
    // SAFETY: `list` is ours to write; what it points to then is freed below.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut addresses = Vec::new();
    let mut next = list.cast_const();
    // SAFETY: each entry of the list, its name and its address live until the list is freed.
    while let Some(entry) = unsafe { next.as_ref() } {
        // SAFETY: the same; a name ends with a zero.
        let name = unsafe { CStr::from_ptr(entry.ifa_name) };
        if is_meant(name.to_bytes(), entry.ifa_flags) {
            // SAFETY: the same.
            addresses.extend(unsafe { address_at(entry.ifa_addr) });
        }
        next = entry.ifa_next;
    }
    // SAFETY: it came from `getifaddrs`, is freed once, and nothing points into it any more.
    unsafe { libc::freeifaddrs(list) };
    Ok(addresses)
}

/// An address of IPv4 or IPv6.
///
/// # Safety
///
/// `address` is null, or points to an address that is as long as its family has it.
unsafe fn address_at(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: the caller's.
    match i32::from(unsafe { address.as_ref() }?.sa_family) {
        libc::AF_INET => {
            // SAFETY: the family says that it is one, and the caller that it is whole.
            let v4 = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the same.
            let v6 = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(v6.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

/// The size of a page, in bytes.
pub fn page_bytes() -> usize {
    // SAFETY: asks for a number.
    let answer = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(answer)
        .ok()
        .filter(|&bytes| bytes > 0)
        .unwrap_or(4096)
}

/// The cores that this process may run on, in ascending order.
///
/// # Errors
///
/// What the kernel said.
pub fn allowed_cores() -> io::Result<Vec<usize>> {
    // SAFETY: a `cpu_set_t` of zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is ours to write, of the size given.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: every index is below CPU_SETSIZE.
    let allowed = |&core: &usize| unsafe { libc::CPU_ISSET(core, &set) };
    Ok((0..libc::CPU_SETSIZE as usize).filter(allowed).collect())
}

/// Pins the calling thread to `core`.
///
/// # Errors
///
/// `EPERM` where systemd's `SystemCallFilter=~@resources` or a container forbids it.
pub fn pin_to(core: usize) -> io::Result<()> {
    // SAFETY: a `cpu_set_t` of zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if core >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: the index is below CPU_SETSIZE, checked above.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: `set` is a valid set of the size given.
    if unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// How nice a thread of background work is: it gets about a tenth of a core that a shard wants too.
const BACKGROUND_NICE: libc::c_int = 10;

/// `IOPRIO_WHO_PROCESS` of linux/ioprio.h: one thread.
const IOPRIO_WHO_PROCESS: libc::c_int = 1;

/// Class "best effort", level 7, the lowest: after everybody else's reads, but never starved, as
/// the class "idle" can be.
const IOPRIO_LOWEST: libc::c_int = 2 << 13 | 7;

/// Puts the calling thread's work after that of other threads, on cores and disks. Where the system
/// refuses, the thread goes on as it is.
pub fn work_in_background() {
    // SAFETY: both take numbers only; 0 is the calling thread. A nicer thread needs no privilege,
    // and raising a number that is higher already is refused without harm.
    unsafe {
        if libc::getpriority(libc::PRIO_PROCESS, 0) < BACKGROUND_NICE {
            libc::setpriority(libc::PRIO_PROCESS, 0, BACKGROUND_NICE);
        }
        libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_LOWEST);
    }
}

/// Fills `bytes` with random bytes of the kernel.
///
/// # Errors
///
/// What the kernel said.
pub fn random(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = &mut bytes[filled..];
        // SAFETY: `rest` is ours to write, of the length given.
        let count = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(count) {
            Ok(count) => filled += count,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nice() -> libc::c_int {
        // SAFETY: it takes numbers only.
        unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
    }

    fn io_priority() -> libc::c_long {
        // SAFETY: it takes numbers only.
        unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0) }
    }

    #[test]
    fn an_interface_has_its_own_addresses_and_no_other_s() {
        let own = interface_addresses("lo").unwrap();
        assert!(own.contains(&Ipv4Addr::LOCALHOST.into()), "{own:?}");
        assert!(own.iter().all(IpAddr::is_loopback), "{own:?}");
        assert!(interface_addresses("absent0").unwrap().is_empty());
    }

    #[test]
    fn our_own_addresses_are_those_of_interfaces_that_are_up() {
        let own = own_addresses().unwrap();
        let lo = interface_addresses("lo").unwrap();
        assert!(lo.iter().all(|address| own.contains(address)), "{own:?}");
    }

    #[test]
    fn background_work_comes_after_the_rest_of_the_process() {
        let before = (nice(), io_priority());
        std::thread::spawn(|| {
            work_in_background();
            assert!(nice() >= BACKGROUND_NICE);
            assert_eq!(io_priority(), libc::c_long::from(IOPRIO_LOWEST));
        })
        .join()
        .unwrap();
        assert_eq!(
            (nice(), io_priority()),
            before,
            "other threads stay as they are"
        );
    }
}
