// Where tokens come from.

/** A bearer token, and when it expires, if that is known. */
export interface Token {
  readonly value: string;
  readonly expires?: Date;
}

/** Gives a token that is good now. It is asked at every attempt to connect, and before a token expires. */
export type TokenSource = () => Promise<Token | string> | Token | string;
