"""Names: answers the containers' DNS questions and forwards what is not ours."""
