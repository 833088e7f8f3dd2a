//! What a process can run: a function that is found by its type alone.

/// A function that a process can run with the arguments `Args`, a tuple.
///
/// Every plain `fn` and every closure that captures nothing is one, with up to twelve arguments. Nothing else
/// can be.
///
/// A function pointer is not: it is an address, and the child, in which the program lies at other addresses,
/// could not tell which function is meant. Nor is a closure that captures something, because what it captures
/// would have to be sent: send it as an argument instead. Both are refused at compile time.
///
/// ```compile_fail,E0080
/// use polyproc_process::Process;
///
/// fn double(n: i32) -> i32 {
///     2 * n
/// }
///
/// let pointer: fn(i32) -> i32 = double;
/// let process = Process::spawn(pointer, (21,)); // error: this is a function pointer
/// ```
///
/// ```compile_fail,E0080
/// use polyproc_process::Process;
///
/// let factor = std::env::args().count() as i32;
/// let process = Process::spawn(move |n: i32| factor * n, (21,)); // error: this closure captures something
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be run by a process with the arguments `{Args}`",
    note = "a process takes a plain `fn`, or a closure that captures nothing",
    note = "and the arguments as a tuple: `()`, `(a,)`, `(a, b)`"
)]
pub trait Function<Args>: sealed::Sealed<Args> + Copy + Send + 'static {
    /// What the function returns.
    type Output;

    #[doc(hidden)]
    fn call(self, arguments: Args) -> Self::Output;
}

mod sealed {
    /// What only this crate implements.
    #[expect(unnameable_types, reason = "that is its purpose")]
    pub trait Sealed<Args> {}
}

macro_rules! functions {
    ($($argument:ident)*) => {
        impl<F, R, $($argument),*> sealed::Sealed<($($argument,)*)> for F
        where
            F: Fn($($argument),*) -> R + Copy + Send + 'static,
        {
        }

        impl<F, R, $($argument),*> Function<($($argument,)*)> for F
        where
            F: Fn($($argument),*) -> R + Copy + Send + 'static,
        {
            type Output = R;

            #[allow(non_snake_case, reason = "the arguments are called like their types")]
            fn call(self, ($($argument,)*): ($($argument,)*)) -> R {
                self($($argument),*)
            }
        }
    };
}

functions!();
functions!(A);
functions!(A B);
functions!(A B C);
functions!(A B C D);
functions!(A B C D E);
functions!(A B C D E G);
functions!(A B C D E G H);
functions!(A B C D E G H I);
functions!(A B C D E G H I J);
functions!(A B C D E G H I J K);
functions!(A B C D E G H I J K L);
functions!(A B C D E G H I J K L M);
