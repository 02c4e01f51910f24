/** First in, first out, without moving what is behind: the head is an index, and the array is cut now and then. */
export class Queue<T> {
  #items: (T | undefined)[] = [];
  #head = 0;

  get length(): number {
    return this.#items.length - this.#head;
  }

  push(item: T): void {
    this.#items.push(item);
  }

  peek(): T | undefined {
    return this.#items[this.#head];
  }

  shift(): T | undefined {
    const item = this.#items[this.#head];
    if (this.#head < this.#items.length) {
      // The slot must not keep the item alive until the next cut.
      this.#items[this.#head] = undefined;
      this.#head += 1;
    }
    if (this.#head === this.#items.length) this.clear();
    // Half of it empty: each item is moved at most once on average.
    else if (this.#head >= 1024 && this.#head * 2 >= this.#items.length) {
      this.#items = this.#items.slice(this.#head);
      this.#head = 0;
    }
    return item;
  }

  clear(): void {
    this.#items = [];
    this.#head = 0;
  }
}
