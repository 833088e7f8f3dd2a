//! iceoryx2: publish-subscribe by loaned samples, polled; its event; and the mutex among its building blocks.

use crate::Shared;
use crate::channel::{Get, Put, slots};
use crate::lock::Counter;
use iceoryx2::port::{listener::Listener, notifier::Notifier, publisher::Publisher, subscriber::Subscriber};
use iceoryx2::prelude::*;
use iceoryx2_bb_posix::mutex::{Handle, Mutex, MutexBuilder, MutexHandle, MutexThreadTerminationBehavior};
use std::hint::spin_loop;
use std::sync::atomic::{AtomicU32, Ordering};

/// A name that no other service of this program has.
fn name() -> ServiceName {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    ServiceName::new(&format!("polyproc-rivals/{}/{number}", std::process::id())).expect("a name")
}

fn node() -> Node<ipc::Service> {
    set_log_level(LogLevel::Error);
    NodeBuilder::new().create().expect("a node")
}

/// A service of messages of `N` bytes, that nobody has opened yet: a publisher waits for room, and drops nothing.
pub struct Messages<const N: usize> {
    name: ServiceName,
    /// How many ends there are, and whether a message has passed.
    ends: Shared<[AtomicU32; 2]>,
}

type Service<const N: usize> =
    iceoryx2::service::port_factory::publish_subscribe::PortFactory<ipc::Service, [u8; N], ()>;

impl<const N: usize> Messages<N> {
    /// A fresh one.
    pub fn new() -> Messages<N> {
        Messages { name: name(), ends: Shared::new() }
    }

    fn open(&self) -> (Node<ipc::Service>, Service<N>) {
        let node = node();
        let service = node
            .service_builder(&self.name)
            .publish_subscribe::<[u8; N]>()
            .enable_safe_overflow(false)
            .subscriber_max_buffer_size(slots::<N>().min(4096))
            .subscriber_max_borrowed_samples(1)
            .max_publishers(1)
            .max_subscribers(1)
            .open_or_create()
            .expect("the service");
        (node, service)
    }

    fn ends(&self) -> &[AtomicU32; 2] {
        // SAFETY: mapped as long as this lives, all nought, and only used as atomics.
        unsafe { &*self.ends.at() }
    }

    /// The publishing end. Waits until a first message has arrived: before the subscriber's first look it would be lost.
    pub fn publisher<const IN_PLACE: bool>(&self) -> Publish<N, IN_PLACE> {
        let (node, service) = self.open();
        let strategy = BackpressureStrategy::RetryUntilDelivered;
        let publisher = service.publisher_builder().max_loaned_samples(1).backpressure_strategy(strategy);
        let publisher = publisher.create().expect("a publisher");
        let [ready, heard] = self.ends();
        ready.fetch_add(1, Ordering::SeqCst);
        while ready.load(Ordering::SeqCst) < 2 {
            std::thread::yield_now();
        }
        let mut end = Publish { publisher, _service: service, _node: node };
        end.put(&[u8::MAX; N]);
        while heard.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        end
    }

    /// The subscribing end, likewise.
    pub fn subscriber<const IN_PLACE: bool>(&self) -> Subscribe<N, IN_PLACE> {
        let (node, service) = self.open();
        let subscriber = service.subscriber_builder().create().expect("a subscriber");
        let [ready, heard] = self.ends();
        while ready.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        // Makes the connection.
        assert!(subscriber.receive().expect("the service").is_none());
        ready.fetch_add(1, Ordering::SeqCst);
        let mut end = Subscribe { subscriber, _service: service, _node: node };
        let mut buffer = crate::channel::zeroed();
        assert_eq!(end.get(&mut buffer, |message: &[u8; N]| message[0]), u8::MAX);
        heard.store(1, Ordering::SeqCst);
        end
    }
}

/// A publishing end, that copies the message into its sample, or writes but its first and last bytes there.
pub struct Publish<const N: usize, const IN_PLACE: bool> {
    publisher: Publisher<ipc::Service, [u8; N], ()>,
    _service: Service<N>,
    _node: Node<ipc::Service>,
}

impl<const N: usize, const IN_PLACE: bool> Put<N> for Publish<N, IN_PLACE> {
    #[inline(always)]
    fn put(&mut self, message: &[u8; N]) {
        let mut sample = self.publisher.loan_uninit().expect("a sample");
        let place = sample.payload_mut().as_mut_ptr().cast::<u8>();
        if IN_PLACE {
            // SAFETY: `N` bytes from the place on, eight or more.
            unsafe {
                place.copy_from_nonoverlapping(message.as_ptr(), 8);
                place.add(N - 8).copy_from_nonoverlapping(message.as_ptr().add(N - 8), 8);
            }
        } else {
            // SAFETY: as large as the message.
            unsafe { place.copy_from_nonoverlapping(message.as_ptr(), N) };
        }
        // SAFETY: bytes: whatever was there before is a value, too, in memory that its maker has filled with nought.
        let sample = unsafe { sample.assume_init() };
        assert_eq!(sample.send().expect("to be delivered"), 1);
    }
}

/// A subscribing end, that copies the message out, or reads it where it lies.
pub struct Subscribe<const N: usize, const IN_PLACE: bool> {
    subscriber: Subscriber<ipc::Service, [u8; N], ()>,
    _service: Service<N>,
    _node: Node<ipc::Service>,
}

impl<const N: usize, const IN_PLACE: bool> Get<N> for Subscribe<N, IN_PLACE> {
    #[inline(always)]
    fn get<R>(&mut self, buffer: &mut [u8; N], read: impl FnOnce(&[u8; N]) -> R) -> R {
        loop {
            if let Some(sample) = self.subscriber.receive().expect("the service") {
                if IN_PLACE {
                    return read(sample.payload());
                }
                buffer.copy_from_slice(sample.payload());
                drop(sample);
                return read(buffer);
            }
            spin_loop();
        }
    }
}

/// Two events.
pub struct Events([ServiceName; 2]);

/// An end of an event, with what it hangs on.
struct End<T>(T, #[expect(dead_code, reason = "kept open")] Node<ipc::Service>);

impl Events {
    /// Fresh ones.
    pub fn new() -> Events {
        Events([name(), name()])
    }

    /// What notifies of one, and what waits for the other, in the process that asks.
    pub fn ends(&self, set: usize, take: usize) -> (impl FnMut() + use<>, impl FnMut() + use<>) {
        let open = |index: usize| {
            let node = node();
            let service = node.service_builder(&self.0[index]).event().open_or_create().expect("the service");
            (node, service)
        };
        let (node, service) = open(take);
        let listener: End<Listener<ipc::Service>> =
            End(service.listener_builder().create().expect("a listener"), node);
        let (node, service) = open(set);
        let notifier: End<Notifier<ipc::Service>> =
            End(service.notifier_builder().create().expect("a notifier"), node);
        // Its listener may have to come.
        while service.dynamic_config().number_of_listeners() == 0 {
            std::thread::yield_now();
        }
        let notify = move || {
            let notifier = &notifier;
            assert_eq!(notifier.0.notify().expect("to be delivered"), 1);
        };
        let wait = move || {
            let listener = &listener;
            let mut heard = 0;
            while heard == 0 {
                listener.0.blocking_wait(|_| heard += 1).expect("the service");
            }
            assert_eq!(heard, 1);
        };
        (notify, wait)
    }
}

/// A counter under the mutex of its building blocks.
pub struct Block(Shared<MutexHandle<u64>>);

impl Block {
    /// One that stalls when its holder dies, or one that is released.
    pub fn new(is_robust: bool) -> Block {
        let shared = Shared::<MutexHandle<u64>>::new();
        // SAFETY: room for a handle, of which nobody else knows.
        unsafe { shared.at().write(MutexHandle::new()) };
        let block = Block(shared);
        let behaviour = match is_robust {
            true => MutexThreadTerminationBehavior::ReleaseWhenLocked,
            false => MutexThreadTerminationBehavior::StallWhenLocked,
        };
        let builder =
            MutexBuilder::new().is_interprocess_capable(true).thread_termination_behavior(behaviour);
        builder.create(0, block.handle()).expect("a mutex");
        block
    }

    fn handle(&self) -> &MutexHandle<u64> {
        // SAFETY: written by `new`, and mapped as long as this lives.
        unsafe { &*self.0.at() }
    }

    fn mutex(&self) -> Mutex<'_, '_, u64> {
        // SAFETY: initialised by `new`.
        unsafe { Mutex::from_handle(self.handle()) }
    }
}

impl Counter for Block {
    #[inline(always)]
    fn work_and_add(&self, work: impl FnOnce()) {
        let mutex = self.mutex();
        let mut number = mutex.lock().expect("the lock");
        work();
        *number += 1;
    }

    fn total(&self) -> u64 {
        *self.mutex().lock().expect("the lock")
    }
}
