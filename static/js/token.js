/**
 * `fetch` in the name of a host's reader who has no session here, but a token. It never sends a cookie to the service.
 * A 401 is asked again once, with a new token.
 * @param {import('./types').TokenOptions} options @returns {import('./types').Fetch}
 */
export function fetchWithToken({ token, tokenUrl, fetch = (...call) => globalThis.fetch(...call) }) {
  let known = null;

  async function askHost() {
    if (token) return token();
    const response = await fetch(tokenUrl ?? '', { credentials: 'same-origin', cache: 'no-store', signal: AbortSignal.timeout(10_000) });
    if (!response.ok) throw new Error(`The page's token-url answered ${response.status}.`);
    return (await response.json()).token;
  }

  function newToken() {
    const asked = askHost();
    asked.catch(() => { if (known === asked) known = null; }); // so that the next call asks again
    return asked;
  }

  function send(value, input, init) {
    const headers = new Headers(init.headers);
    headers.set('Authorization', `Bearer ${value}`);
    return fetch(input, { ...init, headers, credentials: 'omit' });
  }

  return async (input, init = {}) => {
    const tried = (known ??= newToken());
    const response = await send(await before(init.signal, tried), input, init);
    if (response.status !== 401) return response;
    // Of several calls that were refused together the first one asks for a new token, and all of them use it.
    if (known === tried) known = newToken();
    return send(await before(init.signal, (known ??= newToken())), input, init);
  };
}

/** A host that never gives its token must not hold a call up for ever. */
function before(signal, promise) {
  return Promise.race([promise, new Promise((_, reject) => {
    signal?.addEventListener('abort', () => reject(signal.reason));
  })]);
}
