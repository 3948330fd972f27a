//! Places for the calls of one API: so many at one time, and of one user a part of them.
//! The others wait.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::front_proxy::User;

/// Calls that are answered at one time.
const MAX_CALLS: usize = 16;
/// Those of one user: whoever asks for the most has the least of it, and three more users
/// ask beside him.
const MAX_USER_CALLS: usize = 4;
/// Users of whose calls is known; those without any are forgotten.
const MAX_USERS: usize = 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    users: Mutex<HashMap<[u8; 32], Arc<Semaphore>>>,
}

/// A call's place; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _own: Option<OwnedSemaphorePermit>,
    _all: Option<OwnedSemaphorePermit>,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(MAX_CALLS)),
            users: Mutex::default(),
        }
    }
}

impl Places {
    /// Waits for a place: for one of the user's first, so that who waits for his own takes
    /// none of all.
    pub(super) async fn take(&self, user: &User) -> Place {
        let own = self.of(user);
        // Neither is ever closed.
        let own = own.acquire_owned().await.ok();
        let all = Arc::clone(&self.all).acquire_owned().await.ok();
        Place {
            _own: own,
            _all: all,
        }
    }

    fn of(&self, user: &User) -> Arc<Semaphore> {
        let mut users = self.users.lock();
        if users.len() >= MAX_USERS {
            // Whoever waits or is answered holds his own.
            users.retain(|_, own| Arc::strong_count(own) > 1);
        }
        let own = users
            .entry(user.digest())
            .or_insert_with(|| Arc::new(Semaphore::new(MAX_USER_CALLS)));
        Arc::clone(own)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::future::join_all;
    use tokio::time::timeout;

    use super::*;

    fn user(name: &str) -> User {
        User {
            name: name.to_owned(),
            ..User::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_of_one_user_leave_places_for_others() {
        let places = Places::default();
        let one = user("one");
        let many = (0..MAX_CALLS).map(|_| timeout(Duration::from_secs(1), places.take(&one)));
        let held: Vec<Place> = join_all(many).await.into_iter().flatten().collect();
        assert_eq!(held.len(), MAX_USER_CALLS);
        let other = user("other");
        let other = timeout(Duration::from_secs(1), places.take(&other));
        assert!(other.await.is_ok());
        drop(held);
        let again = timeout(Duration::from_secs(1), places.take(&one));
        assert!(again.await.is_ok());
    }

    #[tokio::test]
    async fn users_without_calls_are_forgotten() {
        let places = Places::default();
        let held = places.take(&user("held")).await;
        for number in 0..MAX_USERS * 2 {
            drop(places.take(&user(&number.to_string())).await);
        }
        assert!(places.users.lock().len() <= MAX_USERS);
        assert!(places.users.lock().contains_key(&user("held").digest()));
        drop(held);
    }
}
