//! One fetch for many waiters. The fetch belongs to nobody who waits: who gives up, leaves it to the others.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// Most fetches under way; whoever wants another one is told to come back.
const MAX_UNDER_WAY: usize = 256;

/// The fetches under way, by what they bring.
pub struct Flights<T> {
    under_way: Mutex<HashMap<String, watch::Receiver<Option<T>>>>,
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self { under_way: Mutex::default() }
    }
}

impl<T: Clone + Send + Sync + 'static> Flights<T> {
    /// The result of the fetch of this name, which is started if it is not under way. Nothing if too many are.
    pub async fn join<F>(self: &Arc<Self>, name: &str, start: impl FnOnce() -> F) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut result = self.enter(name, start)?;
        let landed = result.wait_for(Option::is_some).await.ok()?;
        landed.clone()
    }

    fn enter<F>(self: &Arc<Self>, name: &str, start: impl FnOnce() -> F) -> Option<watch::Receiver<Option<T>>>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        // A fetch that panicked has closed its channel and does not count.
        if let Some(result) = under_way.get(name).filter(|result| result.has_changed().is_ok()) {
            return Some(result.clone());
        }
        if under_way.len() >= MAX_UNDER_WAY {
            under_way.retain(|_, result| result.has_changed().is_ok());
            if under_way.len() >= MAX_UNDER_WAY {
                return None;
            }
        }
        let (sender, receiver) = watch::channel(None);
        under_way.insert(name.to_owned(), receiver.clone());
        let (flights, name, fetch) = (Arc::clone(self), name.to_owned(), start());
        tokio::spawn(async move {
            let result = fetch.await;
            flights.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
            sender.send_replace(Some(result));
        });
        Some(receiver)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn many_wait_for_one_and_the_next_starts_anew() {
        let (flights, started) = (Arc::new(Flights::<usize>::default()), Arc::new(AtomicUsize::new(0)));
        let (open, gate) = watch::channel(false);
        let start = || {
            let (started, mut gate) = (Arc::clone(&started), gate.clone());
            async move {
                gate.wait_for(|open| *open).await.expect("the gate is there");
                started.fetch_add(1, Ordering::SeqCst) + 1
            }
        };
        let waiting: Vec<_> = (0..50).filter_map(|_| flights.enter("a", start)).collect();
        open.send_replace(true);
        for mut waiting in waiting {
            assert_eq!(*waiting.wait_for(Option::is_some).await.expect("lands"), Some(1));
        }
        assert_eq!(flights.join("a", start).await, Some(2));
    }

    #[tokio::test]
    async fn a_panic_lets_its_waiters_go_and_the_next_one_fly() {
        let flights = Arc::new(Flights::<usize>::default());
        assert_eq!(flights.join("a", || async { panic!("a test's own") }).await, None);
        assert_eq!(flights.join("a", || async { 7 }).await, Some(7));
    }

    #[tokio::test]
    async fn there_is_a_bound() {
        let flights = Arc::new(Flights::<usize>::default());
        let forever = || std::future::pending::<usize>();
        for number in 0..MAX_UNDER_WAY {
            assert!(flights.enter(&number.to_string(), forever).is_some());
        }
        assert!(flights.enter("one more", forever).is_none());
        assert!(flights.enter("0", forever).is_some(), "who joins needs no room");
    }
}
