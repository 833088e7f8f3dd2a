//! The facade: that everything is there, that it works together, and that every error converts into its own.

use polyproc::{
    AnyArray, AnyValue, Arena, Array, Barrier, BoundedSemaphore, Builder, Condition, CreateError, Error,
    Event, JoinError, JoinableQueue, Mutex, Process, Queue, RLock, RawArray, RawValue, RwLock, Semaphore,
    TypeCode, Value, array, raw_array, raw_value, value,
};
use std::os::fd::AsFd;
use std::time::Duration;

polyproc::init_for_tests!();

#[test]
fn all_handles_reach_a_child_and_are_the_same_there() -> polyproc::Result<()> {
    let arena = Arena::new(16 << 10)?;
    let handles = (
        Value::new(1i32)?,
        Array::new(&[1.5f64, 2.5])?,
        RawValue::new(3u8)?,
        RawArray::new(&[4i16, 5])?,
        AnyValue::new(TypeCode::try_from('l')?, 6)?,
        AnyArray::new(TypeCode::try_from('f')?, [7, 8])?,
        Mutex::new(9u64)?,
        RLock::new(())?,
        Value::new_in(&arena, [10u64; 3])?,
        arena,
    );
    let (value, array, raw, raws, any, anys, mutex, _, large, _) = handles.clone();
    let child = |value: Value<i32>,
                 array: Array<f64>,
                 raw: RawValue<u8>,
                 raws: RawArray<i16>,
                 any: AnyValue,
                 anys: AnyArray,
                 mutex: Mutex<u64>,
                 lock: RLock<()>,
                 large: Value<[u64; 3]>,
                 arena: Arena| {
        let _outer = lock.lock().unwrap();
        let _inner = lock.lock().unwrap();
        *value.lock().unwrap() += 1;
        array.lock().unwrap().reverse();
        raw.fetch_add(1);
        raws.store(1, -5).unwrap();
        any.set(-6).unwrap();
        anys.set(0, 0.5).unwrap();
        *mutex.lock().unwrap() += 1;
        large.update(|numbers| numbers[2] += 1).unwrap();
        Value::new_in(&arena, 11i8).unwrap()
    };
    let made_there = Process::spawn(child, handles)?.join()?;

    assert_eq!(value.get()?, 2);
    assert_eq!(array.to_vec()?, [2.5, 1.5]);
    assert_eq!((raw.load(), raws.to_vec()), (4, vec![4, -5]));
    assert_eq!((any.get()?, anys.get(0)?), ((-6).into(), 0.5.into()));
    assert_eq!(*mutex.lock()?, 10);
    assert_eq!(large.get()?, [10, 10, 11]);
    assert_eq!(made_there.get()?, 11);
    Ok(())
}

#[test]
fn the_other_primitives_reach_a_child_too() -> polyproc::Result<()> {
    type Handles = (
        Semaphore,
        BoundedSemaphore,
        Event,
        Condition,
        Barrier,
        RwLock<u32>,
        Queue<String>,
        JoinableQueue<u8>,
    );
    let handles: Handles = (
        Semaphore::new(1)?,
        BoundedSemaphore::new(1)?,
        Event::new()?,
        Condition::new()?,
        Barrier::new(2)?,
        RwLock::new(1)?,
        Queue::new()?,
        JoinableQueue::bounded(1)?,
    );
    let child = |mutex: Mutex<u8>, handles: Handles| {
        let (semaphore, bounded, event, condition, barrier, rwlock, queue, tasks) = handles;
        barrier.wait().unwrap();
        *mutex.lock().unwrap() = 1;
        condition.notify_all();
        event.wait();
        *rwlock.write().unwrap() += 1;
        semaphore.acquire().forget();
        bounded.acquire().forget();
        queue.put("done".to_owned()).unwrap();
        tasks.get().unwrap();
        tasks.task_done().unwrap();
    };
    let mutex = Mutex::new(0u8)?;
    let process = Process::spawn(child, (mutex.clone(), handles.clone()))?;
    let (semaphore, bounded, event, condition, barrier, rwlock, queue, tasks) = handles;
    barrier.wait()?;
    drop(condition.wait_while(mutex.lock()?, |ready| *ready == 0)?);
    tasks.put(1)?;
    event.set();
    tasks.join();
    assert_eq!(queue.get()?, "done");
    assert_eq!((semaphore.available(), bounded.available(), *rwlock.read()?), (0, 0, 2));
    process.join()?;
    Ok(())
}

#[test]
fn their_errors_convert_too() -> polyproc::Result<()> {
    assert!(matches!(Semaphore::new(0)?.try_acquire().map_err(Error::from), Err(Error::NoPermit)));
    assert!(matches!(BoundedSemaphore::new(1)?.release(1).map_err(Error::from), Err(Error::Release(_))));
    let late = Barrier::new(2)?.wait_timeout(Duration::ZERO).map_err(Error::from);
    assert!(matches!(late, Err(Error::Barrier(_))));
    let queue = Queue::<u8>::bounded(1)?;
    assert!(matches!(queue.try_get().map_err(Error::from), Err(Error::Get(_))));
    queue.put(1)?;
    let full = queue.try_put(2).map_err(Error::from).unwrap_err();
    assert_eq!(full.to_string(), "the queue is full");
    assert!(matches!(JoinableQueue::<u8>::new()?.task_done().map_err(Error::from), Err(Error::TaskDone(_))));
    Ok(())
}

#[test]
fn macros_pick_the_type_by_its_code() -> polyproc::Result<()> {
    let _: Value<i32> = value!('i', 0)?;
    let _: Array<f64> = array!('d', [1.0, 2.0])?;
    let _: RawValue<u8> = raw_value!('B', 7)?;
    let _: RawArray<i16> = raw_array!('h', [1, 2])?;
    Ok(())
}

#[test]
fn every_error_converts_and_keeps_its_words() -> polyproc::Result<()> {
    let array = Array::new(&[1i32])?;
    let mutex = Mutex::new(0u8)?;
    let guard = mutex.lock()?;
    let outside = array.get(1).unwrap_err();
    assert_eq!(Error::from(outside).to_string(), outside.to_string());
    let held = mutex.try_lock().unwrap_err();
    assert_eq!(held.to_string(), "the lock is held");
    assert_eq!(Error::from(held).to_string(), "the lock is held");
    assert!(matches!(mutex.lock_timeout(Duration::ZERO).map_err(Error::from), Err(Error::TimedOut)));
    assert!(matches!(TypeCode::try_from('x').map_err(Error::from), Err(Error::TypeCode(_))));
    assert!(matches!(value!('b', 0)?.get().map_err(Error::from), Ok(0)));
    let any = AnyValue::new(TypeCode::try_from('b')?, 0)?;
    assert!(matches!(any.set(300).map_err(Error::from), Err(Error::Number(_))));
    drop(guard);

    let rlock = RLock::new(0u8)?;
    let (mut outer, inner) = (rlock.lock()?, rlock.lock()?);
    let nested = outer.set(1).unwrap_err();
    assert_eq!(Error::from(nested).to_string(), nested.to_string());
    drop(inner);
    outer.set(1)?;

    let full = Value::new_in(&Arena::new(64)?, 0u8).unwrap_err();
    assert!(matches!(full.get_ref().unwrap().downcast_ref(), Some(CreateError::ArenaFull { .. })));
    assert!(Error::from(full).to_string().starts_with("the arena is full"));

    let process = Builder::new().name("killed").spawn(|| std::thread::sleep(Duration::from_secs(60)), ())?;
    process.kill()?;
    let error = Error::from(process.join().unwrap_err());
    assert!(matches!(error, Error::Join(JoinError::Signaled(9))), "{error:?}");
    assert_eq!(error.to_string(), "killed by SIGKILL");
    Ok(())
}

#[test]
fn a_killed_child_poisons_what_it_held_and_is_named() -> polyproc::Result<()> {
    let value = Value::new(1i32)?;
    let child = |value: Value<i32>| {
        let _guard = value.lock().unwrap();
        std::thread::sleep(Duration::from_secs(60));
    };
    let process = Process::spawn(child, (value.clone(),))?;
    while !value.is_locked() {
        assert!(process.is_alive());
        std::thread::yield_now();
    }
    while value.holder() != Some(process.pid()) {
        std::thread::yield_now();
    }
    process.kill()?;
    let _ = process.join();
    let error = Error::from(value.get().unwrap_err());
    let Error::Poisoned(cause) = error else { panic!("{error:?}") };
    assert_eq!(cause.pid(), process.pid());
    value.clear_poison();
    assert_eq!(value.get()?, 1);
    Ok(())
}

#[test]
fn connections_reach_a_child_and_bring_handles() -> polyproc::Result<()> {
    fn add(connection: polyproc::Connection<i32, (Value<i32>, i32)>) {
        for message in connection.iter() {
            let (value, n) = message.unwrap();
            value.update(|value| *value += n).unwrap();
            connection.send(value.get().unwrap()).unwrap();
        }
    }
    let (here, there) = polyproc::pipe::<(Value<i32>, i32), i32>()?;
    let child = Process::spawn(add, (there,))?;
    let value = Value::new(40)?;
    here.send((value.clone(), 2))?;
    assert_eq!(here.recv()?, 42);
    assert_eq!(value.get()?, 42);
    here.close()?;
    child.join()?;

    // The child's process and its connection, whichever is first.
    let (here, there) = polyproc::pipe::<u8, u8>()?;
    let child = Process::spawn(|there: polyproc::Connection<u8, u8>| drop(there.recv()), (there,))?;
    assert!(polyproc::wait(&[here.as_fd(), child.sentinel()], Duration::ZERO)?.is_empty());
    child.kill()?;
    assert!(!polyproc::wait(&[polyproc::Waitable::from(&here), child.sentinel().into()], None)?.is_empty());
    assert!(matches!(here.recv().map_err(Error::from), Err(Error::Recv(polyproc::RecvError::Disconnected))));
    assert!(matches!(here.send(1).map_err(Error::from), Err(Error::Send(_))));
    child.join().unwrap_err();
    Ok(())
}

#[test]
fn each_crate_is_there_as_a_whole() {
    use polyproc::{
        barrier, condition, event, memory, mutex, pipe, pool, process, queue, rwlock, semaphore, value,
    };
    let raw = mutex::RawMutex::new();
    assert!(!raw.is_locked());
    let _: semaphore::Semaphore = Semaphore::new(1).unwrap();
    let _: event::Event = Event::new().unwrap();
    let _: condition::Condition = Condition::new().unwrap();
    let _: rwlock::RwLock<u8> = RwLock::new(1).unwrap();
    let _: barrier::Barrier = Barrier::new(1).unwrap();
    let _: memory::Region = Arena::new(64).unwrap().region().clone();
    let _: value::Value<i32> = value!('i', 1).unwrap();
    let _: queue::Queue<u8> = Queue::new().unwrap();
    let _: (pipe::Connection<u8, u8>, _) = pipe::pipe().unwrap();
    let _ = (pool::Retry::Never, process::Stdio::null(), Process::builder().name("a"));
}
