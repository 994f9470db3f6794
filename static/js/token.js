/**
 * `fetch` in the name of a host's reader who has no session here, but a token of the host's. It never sends a
 * cookie to the service. A 401 is asked again once, with a new token.
 *
 * @param {object} options
 * @param {() => string | Promise<string>} [options.token] gives a token, a new one each time it is asked
 * @param {string | URL} [options.tokenUrl] answers `{"token": "…"}` to whoever is signed in at the host
 * @param {typeof globalThis.fetch} [options.fetch]
 * @returns {typeof globalThis.fetch}
 */
export function fetchWithToken({ token, tokenUrl, fetch = (input, init) => globalThis.fetch(input, init) }) {
  let known = /** @type {Promise<string> | null} */ (null);

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

  /** @param {string} value @param {RequestInfo | URL} input @param {RequestInit} init */
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
