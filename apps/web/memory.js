// What the browser keeps for the next visit; nothing where it may keep nothing.

export function recall(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // the browser keeps nothing for this page
  }
}
