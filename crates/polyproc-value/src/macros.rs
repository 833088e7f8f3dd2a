//! Types by their code, at compile time.

/// A [`Value`](crate::Value) of the type that a code names: `value!('i', 0)` is `Value::<i32>::new(0)`, and
/// `value!('i')` too. For a code that is known at run time only, see [`AnyValue`](crate::AnyValue).
///
/// # Errors
///
/// As [`Value::new`](crate::Value::new). An unknown code, or a literal outside of the code's range, does not
/// compile.
///
/// # Examples
///
/// ```
/// use polyproc_value::{Value, value};
///
/// let number: Value<i32> = value!('i', 7)?;
/// assert_eq!(number.get()?, 7);
/// assert_eq!(value!('d')?.get()?, 0.0);
/// assert_eq!(value!('f', -1)?.get()?, -1.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// ```compile_fail
/// polyproc_value::value!('x', 0); // Unknown code.
/// ```
///
/// ```compile_fail
/// polyproc_value::value!('b', 300); // Out of range.
/// ```
#[macro_export]
macro_rules! value {
    ($code:tt $(,)?) => {
        $crate::Value::<$crate::__type_of_code!($code)>::new(::core::default::Default::default())
    };
    ($code:tt, $value:literal $(,)?) => {
        $crate::Value::<$crate::__type_of_code!($code)>::new($crate::__elements::Literal::number($value))
    };
    ($code:tt, $value:expr $(,)?) => {
        $crate::Value::<$crate::__type_of_code!($code)>::new($value)
    };
}

/// An [`Array`](crate::Array) of the type that a code names: `array!('i', [1, 2, 3])`, of a list, a slice, a
/// `Vec` or a range; or `array!('i'; 3)`, or `array!('i', 3)`, of so many zeros. For a code that is known at
/// run time only, see [`AnyArray`](crate::AnyArray).
///
/// # Errors
///
/// As [`Array::new`](crate::Array::new). An unknown code, or a literal outside of the code's range, does not
/// compile.
///
/// # Examples
///
/// ```
/// use polyproc_value::{Array, array};
///
/// let list: Array<i16> = array!('h', [1, 2, 3])?;
/// assert_eq!(list.to_vec()?, [1, 2, 3]);
/// let halves: Vec<f64> = (0..4).map(|n| f64::from(n) / 2.0).collect();
/// assert_eq!(array!('d', halves)?.get(3)?, 1.5);
/// assert_eq!(array!('B'; 1000)?.len(), 1000);
/// assert_eq!(array!('l', 5..8)?.to_vec()?, [5, 6, 7]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// ```compile_fail
/// polyproc_value::array!('u', [1, 2, 3]); // Unknown code.
/// ```
#[macro_export]
macro_rules! array {
    ($code:tt; $len:expr) => {
        $crate::Array::<$crate::__type_of_code!($code)>::zeroed($len)
    };
    ($code:tt, [] $(,)?) => {
        $crate::Array::<$crate::__type_of_code!($code)>::zeroed(0)
    };
    ($code:tt, $elements:expr $(,)?) => {
        $crate::__elements::array::<$crate::__type_of_code!($code)>(&$elements)
    };
}

/// A [`RawValue`](crate::RawValue) of the type that a code names: `raw_value!('i', 0)`, or `raw_value!('i')`.
///
/// # Errors
///
/// As [`RawValue::new`](crate::RawValue::new).
///
/// # Examples
///
/// ```
/// use polyproc_value::raw_value;
///
/// let ticket = raw_value!('Q', 41)?;
/// assert_eq!(ticket.fetch_add(1), 41u64);
/// assert_eq!(raw_value!('h')?.load(), 0i16);
/// # Ok::<(), std::io::Error>(())
/// ```
#[macro_export]
macro_rules! raw_value {
    ($code:tt $(,)?) => {
        $crate::RawValue::<$crate::__type_of_code!($code)>::new(::core::default::Default::default())
    };
    ($code:tt, $value:literal $(,)?) => {
        $crate::RawValue::<$crate::__type_of_code!($code)>::new($crate::__elements::Literal::number($value))
    };
    ($code:tt, $value:expr $(,)?) => {
        $crate::RawValue::<$crate::__type_of_code!($code)>::new($value)
    };
}

/// A [`RawArray`](crate::RawArray) of the type that a code names: `raw_array!('i', [1, 2, 3])`, or
/// `raw_array!('i'; 3)`.
///
/// # Errors
///
/// As [`RawArray::new`](crate::RawArray::new).
///
/// # Examples
///
/// ```
/// use polyproc_value::raw_array;
///
/// let bits = raw_array!('L', [1, 2])?;
/// bits.fetch_or(0, 6)?;
/// assert_eq!(bits.to_vec(), [7, 2]);
/// assert_eq!(raw_array!('f'; 3)?.to_vec(), [0.0; 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[macro_export]
macro_rules! raw_array {
    ($code:tt; $len:expr) => {
        $crate::RawArray::<$crate::__type_of_code!($code)>::zeroed($len)
    };
    ($code:tt, [] $(,)?) => {
        $crate::RawArray::<$crate::__type_of_code!($code)>::zeroed(0)
    };
    ($code:tt, $elements:expr $(,)?) => {
        $crate::__elements::raw_array::<$crate::__type_of_code!($code)>(&$elements)
    };
}

/// The type that a code names.
#[doc(hidden)]
#[macro_export]
macro_rules! __type_of_code {
    ('b') => { ::core::ffi::c_schar };
    ('B') => { ::core::ffi::c_uchar };
    ('h') => { ::core::ffi::c_short };
    ('H') => { ::core::ffi::c_ushort };
    ('i') => { ::core::ffi::c_int };
    ('I') => { ::core::ffi::c_uint };
    ('l') => { ::core::ffi::c_long };
    ('L') => { ::core::ffi::c_ulong };
    ('q') => { ::core::ffi::c_longlong };
    ('Q') => { ::core::ffi::c_ulonglong };
    ('f') => { ::core::ffi::c_float };
    ('d') => { ::core::ffi::c_double };
    ($other:tt) => {
        ::core::compile_error!(::core::concat!(
            "unknown type code ", ::core::stringify!($other), ": known are 'b' 'B' 'h' 'H' 'i' 'I' 'l' 'L' 'f' 'd', and ",
            "'q' 'Q' for the 64-bit types; for a code that is known at run time only, use AnyValue or AnyArray"
        ))
    };
}
