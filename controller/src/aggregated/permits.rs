//! Permits that limit concurrent calls of one API, in total and by user. Calls without a permit
//! wait.
//!
//! Claims: observe-21

use runtime::keyed_semaphore::{KeyedPermit, KeyedSemaphore};

use super::front_proxy::User;

/// Calls that are answered at one time.
const MAX_CALLS: usize = 16;
/// Those of one user: the user with most calls has the least of it, and three more users fit
/// beside.
const MAX_USER_CALLS: usize = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Permits(KeyedSemaphore<[u8; 32]>);

impl Default for Permits {
    fn default() -> Self {
        Self(KeyedSemaphore::new(MAX_CALLS, MAX_USER_CALLS))
    }
}

impl Permits {
    /// Waits for a permit, which is given back when it is dropped.
    pub(super) async fn acquire(&self, user: &User) -> KeyedPermit<'_, [u8; 32]> {
        self.0.acquire(user.digest()).await
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
        let permits = Permits::default();
        let one = user("one");
        let many = (0..MAX_CALLS).map(|_| timeout(Duration::from_secs(1), permits.acquire(&one)));
        let taken: Vec<_> = join_all(many).await.into_iter().flatten().collect();
        assert_eq!(taken.len(), MAX_USER_CALLS);
        let other = user("other");
        let other = timeout(Duration::from_secs(1), permits.acquire(&other));
        assert!(other.await.is_ok());
        drop(taken);
        let again = timeout(Duration::from_secs(1), permits.acquire(&one));
        assert!(again.await.is_ok());
    }

    #[tokio::test]
    async fn users_without_calls_are_forgotten() {
        let permits = Permits::default();
        let taken = permits.acquire(&user("held")).await;
        for number in 0..2000 {
            drop(permits.acquire(&user(&number.to_string())).await);
        }
        assert_eq!(permits.0.sources(), 1);
        drop(taken);
        assert_eq!(permits.0.sources(), 0);
    }
}
