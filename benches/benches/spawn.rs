//! Starting a process and waiting for its end: ours beside posix_spawn(3) and waitpid(2) of the same program.

use polyproc::Process;
use polyproc_benches::{Table, is_test, time_each};
use std::ffi::CString;

fn nothing() {}

/// The bare minimum: the same program, which ends at once.
fn bare(program: &CString, exit: &CString) {
    let mut pid = 0;
    let arguments = [program.as_ptr().cast_mut(), exit.as_ptr().cast_mut(), core::ptr::null_mut()];
    // SAFETY: glibc's own variable, which nobody changes here.
    let environment = unsafe { environ };
    // SAFETY: the path, the arguments and the environment end with null, and live to the end of the call.
    let result = unsafe {
        libc::posix_spawn(
            &mut pid,
            program.as_ptr(),
            core::ptr::null(),
            core::ptr::null(),
            arguments.as_ptr(),
            environment,
        )
    };
    assert_eq!(result, 0);
    let mut status = 0;
    // SAFETY: waits for the child that was started above.
    let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
    assert_eq!((waited, status), (pid, 0));
}

unsafe extern "C" {
    static environ: *const *mut libc::c_char;
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("--exit-at-once") {
        return;
    }
    polyproc::init();
    let program = CString::new("/proc/self/exe").unwrap();
    let exit = CString::new("--exit-at-once").unwrap();
    let count = if is_test() { 2 } else { 200 };
    Table::new("start a process and wait for its end")
        .subject("posix_spawn, waitpid", || time_each(count, || bare(&program, &exit)))
        .subject("polyproc Process::spawn, join", || {
            time_each(count, || Process::spawn(nothing, ()).expect("a process").join().expect("its end"))
        })
        .subject("std::thread::spawn, join", || {
            time_each(count, || std::thread::spawn(nothing).join().expect("its end"))
        })
        .run();
}
