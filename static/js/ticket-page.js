// Loaded only where nobody else is signed in: then there is nothing to decide, and the button is pressed
// for the reader. Following the link alone must not spend the ticket, or a mail scanner would use it up.
/** @type {HTMLFormElement} */ (document.getElementById('ticket')).requestSubmit();
